"""inetd: epoll and a *blocking* accept; executes a program for each connection.

Natively a second start stays alive without a listener.
"""

from harness.server import Server

SERVER = Server(
    title="inetd",
    packages=["openbsd-inetd"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "openbsd-inetd"],
    command=["/usr/sbin/inetd", "-d", "@DIR@/inetd.conf"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\r\\n",
    files={"inetd.conf": "127.0.0.1:@PORT@ stream tcp nowait.1000000 root /bin/cat cat\n"},
)
