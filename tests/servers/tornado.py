"""tornado: asyncio, epoll, one thread; TERM ends it at once."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="tornado",
    packages=["python3-tornado"],
    version=["/usr/bin/python3", "-c", "import tornado; print(tornado.version)"],
    command=["/usr/bin/python3", "@PROGRAMS@/pages.py", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
