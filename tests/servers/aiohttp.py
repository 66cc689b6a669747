"""aiohttp: asyncio, one process, epoll; on SIGTERM it finishes what is in hand."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="aiohttp",
    packages=["python3-aiohttp"],
    version=["/usr/bin/python3", "-c", "import aiohttp; print(aiohttp.__version__)"],
    command=["/usr/bin/python3", "@PROGRAMS@/aiohttp_pages.py", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
