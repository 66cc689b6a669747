"""A Perl server of the classic kind: asleep in accept, a child for each connection."""

from harness.server import Server

SERVER = Server(
    title="Perl, fork",
    packages=["perl"],
    version=["/usr/bin/perl", "-e", "print substr $^V, 1"],
    command=["/usr/bin/perl", "@PROGRAMS@/fork.pl", "@PORT@"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\r\\n",
)
