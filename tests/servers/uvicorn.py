"""uvicorn: asyncio, one process, epoll; on SIGTERM it finishes what is in hand."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="uvicorn",
    packages=["uvicorn"],
    version=["/usr/bin/uvicorn", "--version"],
    command=["/usr/bin/uvicorn", "--host", "127.0.0.1", "--port", "@PORT@", "--timeout-keep-alive", "60",
             "--no-access-log", "--app-dir", "@PROGRAMS@", "asgi:application"],
    url="http://127.0.0.1:@PORT@/",
    environment={"PYTHONDONTWRITEBYTECODE": "1"},
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
