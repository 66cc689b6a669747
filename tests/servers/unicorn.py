"""unicorn: a master binds, workers wait in select and serve one connection each; SIGTERM drops what is in hand."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="unicorn, master and workers",
    packages=["unicorn"],
    version=["/usr/bin/unicorn", "--version"],
    command=["/usr/bin/unicorn", "--config-file", "@DIR@/unicorn.rb", "--env", "production", "@PROGRAMS@/config.ru"],
    url="http://127.0.0.1:@PORT@/",
    # A half-sent request occupies a worker.
    files={"unicorn.rb": "listen '127.0.0.1:@PORT@'\nworker_processes 8\ntimeout 60\n"},
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
    keeps_alive=False,
)
