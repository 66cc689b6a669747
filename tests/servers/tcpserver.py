"""tcpserver: asleep in accept; executes a program for each connection."""

from harness.server import Server

SERVER = Server(
    title="tcpserver",
    packages=["ucspi-tcp"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "ucspi-tcp"],
    command=["/usr/bin/tcpserver", "-H", "-R", "-l", "0", "127.0.0.1", "@PORT@", "/bin/cat"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\r\\n",
)
