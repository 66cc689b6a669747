"""ncat -lk: select and a non-blocking accept; executes a program for each connection."""

from harness.server import Server

SERVER = Server(
    title="ncat -lk",
    packages=["ncat"],
    version=["/usr/bin/ncat", "--version"],
    command=["/usr/bin/ncat", "-lk", "127.0.0.1", "@PORT@", "-e", "/bin/cat"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\r\\n",
)
