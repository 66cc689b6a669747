"""socat, fork: select and a *blocking* accept; a child for each connection."""

from harness.server import Server

SERVER = Server(
    title="socat, fork",
    packages=["socat"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "socat"],
    command=["/usr/bin/socat", "TCP-LISTEN:@PORT@,bind=127.0.0.1,fork,reuseaddr,backlog=64", "EXEC:cat"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\r\\n",
)
