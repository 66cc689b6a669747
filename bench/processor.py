"""Processor time per request of servers that people run, with and without the library.

Every pair is two fresh processes, since where a process finds its memory alone makes a
difference of some per cent for as long as it lives. With fewer pairs than enough the
answer may be "unclear": over the limit, but not by more than chance would explain.
"""

import shutil
from statistics import median

from stage import Failure, Server, free_port, run
from table import doubt

limit = 1.03
enough = 24  # pairs
clients = 4


class Subject:
    """A server, and what its clients ask."""

    def __init__(self, name, command, text, length=None):
        self.name = name
        self.command = command
        self.text = text
        self.length = length  # of the answer; None: an HTTP server, it tells


def subjects(directory):
    files = directory / "files"
    files.mkdir()
    (files / "index.html").write_text("Continuity\n" * 100, encoding="ascii")

    def lighttpd(port):
        path = directory / f"lighttpd.{port}.conf"
        path.write_text(f'server.bind = "127.0.0.1"\nserver.port = {port}\n'
                        f'server.document-root = "{files}"\n'
                        'index-file.names = ("index.html")\n'
                        "server.max-keep-alive-requests = 1000000\n", encoding="utf-8")
        return ["lighttpd", "-D", "-f", str(path)]

    def redis(port):
        # Its protected mode lets in 127.0.0.1 only; the clients come from many addresses of the loopback.
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "",
                "--dir", str(directory), "--protected-mode", "no"]

    def memcached(port):
        return ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-U", "0"]

    return [Subject("lighttpd", lighttpd, r"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"),
            Subject("redis-server", redis, r"GET nothing\r\n", len("$-1\r\n")),
            Subject("memcached", memcached, r"get nothing\r\n", len("END\r\n"))]


def measure(stage, table):
    pairs = stage.few_or_many(4, enough)
    table.section(f"processor: time per request, medians of {pairs} pairs")
    for subject in subjects(stage.directory):
        if not shutil.which(subject.command(0)[0]):
            table.add(f"{subject.name}: not installed", "", "", "", f"{limit}", False)
            continue
        compare(stage, table, subject, pairs)


def compare(stage, table, subject, pairs):
    kinds = {"kept": stage.few_or_many(3000, 12000), "fresh": stage.few_or_many(1000, 3000)}
    spent = {(kind, side): [] for kind in kinds for side in ("without", "with")}
    for turn in range(pairs):
        for side, environment in stage.sides(turn):
            port = free_port()
            with Server(subject.command(port), environment) as server:
                length = length_of_answer(server, port, subject)
                for kind, requests in kinds.items():
                    ask(stage, kind, port, requests // 10, length, subject.text)
                    begun = server.processor_time()
                    ask(stage, kind, port, requests, length, subject.text)
                    spent[kind, side].append((server.processor_time() - begun) / requests)
    for kind, title in (("kept", "connections kept"), ("fresh", "a connection a request")):
        without, with_ = spent[kind, "without"], spent[kind, "with"]
        ratios = [one / other for one, other in zip(with_, without)]
        table.add(f"{subject.name}, {title}", f"{median(without) / 1000:.2f} µs",
                  f"{median(with_) / 1000:.2f} µs", f"{median(ratios):.3f} ±{doubt(ratios):.3f}",
                  f"{limit}", keeps_limit(ratios))


def keeps_limit(ratios):
    over = median(ratios) - limit
    if 0 < over <= doubt(ratios) and len(ratios) < enough:
        return "unclear"
    return over <= 0


def ask(stage, kind, port, requests, length, text):
    run([stage.program("clients"), kind, str(port), str(clients), str(requests), str(length), text],
        stage.without)


def length_of_answer(server, port, subject):
    with server.wait_for_answer(port) as connection:
        if subject.length:
            return subject.length
        connection.sendall(subject.text.replace(r"\r", "\r").replace(r"\n", "\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            block = connection.recv(65536)
            if not block:
                raise Failure(f"{subject.name} does not answer")
            answer += block
    head, separator, _ = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return len(head + separator) + int(line.split(b":")[1])
    raise Failure(f"{subject.name} does not say how long its answer is")
