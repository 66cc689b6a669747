"""Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists."""

import time
from pathlib import Path


def application(environ, start_response):
    body = b"hello\n"
    if environ["PATH_INFO"] == "/wait":
        gate = Path(environ["QUERY_STRING"])
        gate.with_name(gate.name + ".begun").touch()
        while not gate.exists():
            time.sleep(0.005)
        body = b"waited\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
