"""node, plain http: epoll_pwait, one accept4 a wake-up, epoll_ctl partly through io_uring."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="node",
    packages=["nodejs"],
    version=["node", "--version"],
    command=["node", "@PROGRAMS@/index.js", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
