"""lighttpd: one process, epoll.

When it ends it empties or unlinks its pid file, even as a second start that has
failed.
"""

from harness.in_flight import Download
from harness.server import Server

_configuration = """
server.document-root = "@DIR@/site"
server.bind = "127.0.0.1"
server.port = @PORT@
server.pid-file = "@DIR@/lighttpd.pid"
server.errorlog = "@DIR@/lighttpd.errors"
index-file.names = ("index.html")
server.max-keep-alive-requests = 1000
server.max-keep-alive-idle = 60
"""

SERVER = Server(
    title="lighttpd",
    packages=["lighttpd"],
    version=["/usr/sbin/lighttpd", "-v"],
    command=["/usr/sbin/lighttpd", "-D", "-f", "@DIR@/lighttpd.conf"],
    url="http://127.0.0.1:@PORT@/",
    files={"lighttpd.conf": _configuration, "site/index.html": "hello\n"},
    in_flight=[Download("/large", "site/large")],
    pid_file="@DIR@/lighttpd.pid",
)
