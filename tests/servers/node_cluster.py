"""node's cluster: the primary accepts, by epoll, and passes each connection to a worker over SCM_RIGHTS."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="node, cluster",
    packages=["nodejs"],
    version=["node", "--version"],
    command=["node", "@PROGRAMS@/cluster.js", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
