"""redis-server on a UNIX socket: unlinks the path before bind, and again when it ends.

Natively a second start steals the path, and the end of the first takes away the
path of the second.
"""

from harness.server import Server

SERVER = Server(
    title="redis-server (UNIX)",
    packages=["redis-server"],
    version=["redis-server", "--version"],
    command=["redis-server", "--port", "0", "--unixsocket", "@DIR@/redis.sock", "--save", "", "--appendonly", "no"],
    connect="@DIR@/redis.sock",
    send="PING\\r\\n",
    expect="+PONG\\r\\n",
)
