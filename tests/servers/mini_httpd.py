"""mini_httpd: select and a *blocking* accept; a child for each connection, which answers by HTTP/1.0."""

from harness.in_flight import Download
from harness.server import Server

SERVER = Server(
    title="mini_httpd",
    packages=["mini-httpd"],
    version=["/usr/sbin/mini_httpd", "-V"],
    command=["/usr/sbin/mini_httpd", "-D", "-h", "127.0.0.1", "-p", "@PORT@", "-d", "@DIR@/site", "-u", "nobody"],
    url="http://127.0.0.1:@PORT@/",
    files={"site/index.html": "hello\n"},
    in_flight=[Download("/large", "site/large")],
    keeps_alive=False,
)
