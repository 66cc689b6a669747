"""busybox httpd: asleep in accept; a child for each connection, which answers by HTTP/1.0."""

from harness.in_flight import Download
from harness.server import Server

SERVER = Server(
    title="busybox httpd",
    packages=["busybox"],
    version=["busybox"],
    command=["busybox", "httpd", "-f", "-p", "127.0.0.1:@PORT@", "-h", "@DIR@/site"],
    url="http://127.0.0.1:@PORT@/",
    files={"site/index.html": "hello\n"},
    in_flight=[Download("/large", "site/large")],
    keeps_alive=False,
)
