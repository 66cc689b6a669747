"""puma, single mode: one process, select and accept_nonblock; calls listen twice."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="puma",
    packages=["puma"],
    version=["/usr/bin/puma", "--version"],
    command=["/usr/bin/puma", "--bind", "tcp://127.0.0.1:@PORT@", "--threads", "12:12", "--environment", "production",
             "@PROGRAMS@/config.ru"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
