"""webfs: one process, select and a non-blocking accept; leaves root after it has bound."""

from harness.in_flight import Download
from harness.server import Server

SERVER = Server(
    title="webfs",
    packages=["webfs"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "webfs"],
    command=["webfsd", "-F", "-i", "127.0.0.1", "-p", "@PORT@", "-r", "@DIR@/site", "-f", "index.html",
             "-u", "nobody", "-g", "nogroup"],
    url="http://127.0.0.1:@PORT@/",
    files={"site/index.html": "hello\n"},
    in_flight=[Download("/large", "site/large")],
)
