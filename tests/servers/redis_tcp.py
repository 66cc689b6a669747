"""redis-server on TCP: one thread accepts until EAGAIN; calls us before our constructor, from jemalloc.

Nothing is written to disk: what a server keeps in memory or in files is its own
affair, and two generations do not share it.
"""

from harness.in_flight import Released
from harness.server import Server

SERVER = Server(
    title="redis-server (TCP)",
    packages=["redis-server"],
    version=["redis-server", "--version"],
    command=["redis-server", "--bind", "127.0.0.1", "--port", "@PORT@", "--save", "", "--appendonly", "no",
             # Its protected mode lets in 127.0.0.1 only; the clients come from many addresses of the loopback.
             "--protected-mode", "no"],
    connect="127.0.0.1:@PORT@",
    send="PING\\r\\n",
    expect="+PONG\\r\\n",
    in_flight=[Released("BLPOP list 0\r\n", "RPUSH list element\r\n", "*2\r\n$4\r\nlist\r\n$7\r\nelement\r\n")],
)
