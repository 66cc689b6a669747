"""Requests that are begun before a restart and must be answered whole after it.

Each kind is begun on the predecessor (`begin`), is held by it while the
successor takes over, and is finished later (`finish` gives "ok" or what went
wrong). None of them depends on the time a restart takes: what holds them is an
event that the trial brings about.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from .load import Load
from .server import Place

patience = 20.0


class HalfSent:
    """A request of which the last bytes are sent after the take-over."""

    def __init__(self, load: Load, name: str, server: int) -> None:
        self._load, self._name = load, name
        _expect_held(load.ask(f"open {name}"), server)

    def finish(self) -> str:
        return self._load.ask(f"finish {self._name}")["outcome"]


class KeptAlive:
    """A connection with one request before the take-over and one after it."""

    def __init__(self, load: Load, name: str, server: int) -> None:
        self._load, self._name = load, name
        _expect_held(load.ask(f"keep {name}"), server)

    def finish(self) -> str:
        outcome = self._load.ask(f"again {self._name}")["outcome"]
        self._load.ask(f"drop {self._name}")
        return outcome


class Download:
    """A large answer, which stays in the server as the client stops reading."""

    # More than the kernel buffers for a connection (net.ipv4.tcp_wmem: 4 MiB).
    size = 16 << 20

    def __init__(self, url_path: str, file: str) -> None:
        self._url_path, self._file = url_path, file

    def begin(self, place: Place, number: int) -> Download.Begun:
        path = place.directory / self._file
        if not path.exists():
            path.write_bytes(os.urandom(self.size))
        return self.Begun(place.port, self._url_path, path)

    class Begun:
        def __init__(self, port: int, url_path: str, path: Path) -> None:
            self._path = path
            self._socket = socket.create_connection(("127.0.0.1", port), patience)
            self._socket.sendall(f"GET {url_path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            self._received = self._socket.recv(1024)

        def finish(self) -> str:
            with self._socket as connection:
                answer = bytearray(self._received)
                try:
                    while chunk := connection.recv(1 << 20):
                        answer += chunk
                except OSError as problem:
                    return f"download cut after {len(answer)} bytes: {problem}"
            body = bytes(answer).partition(b"\r\n\r\n")[2]
            whole = hashlib.sha256(body).digest() == hashlib.sha256(self._path.read_bytes()).digest()
            return "ok" if whole else f"download: {len(body)} of {Download.size} bytes, or not the same"


class AtWork:
    """A request that the server works on until a file appears: /wait?NAME in the example programs.

    They write NAME.begun first, so that it is known to be in hand when the restart begins.
    """

    def __init__(self, request: str | Callable[[str], bytes]) -> None:
        """The request with @GATE@ for NAME, or what makes it of NAME."""
        self._request = request if callable(request) else lambda name: request.replace("@GATE@", name).encode()

    def begin(self, place: Place, number: int) -> AtWork.Begun:
        gate = place.directory / f"gate-{number}"
        return self.Begun(place.port, self._request(gate.name), gate)

    class Begun:
        def __init__(self, port: int, request: bytes, gate: Path) -> None:
            self._gate = gate
            self._socket = socket.create_connection(("127.0.0.1", port), patience)
            self._socket.sendall(request)
            deadline = time.monotonic() + patience
            while not gate.with_name(gate.name + ".begun").exists():
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"the server did not begin {request!r}")
                time.sleep(0.002)

        def finish(self) -> str:
            self._gate.touch()
            return _read_answer(self._socket, b"waited\n")


class Released:
    """A request that waits inside the server until another, older connection asks for its release."""

    def __init__(self, ask: str, release: str, answer: str) -> None:
        self._ask, self._release, self._answer = ask, release, answer

    def begin(self, place: Place, number: int) -> Released.Begun:
        return self.Begun(place.port, self._ask, self._release, self._answer)

    class Begun:
        def __init__(self, port: int, ask: str, release: str, answer: str) -> None:
            self._release, self._answer = release.encode(), answer.encode()
            self._waiting, self._releaser = (socket.create_connection(("127.0.0.1", port), patience) for _ in range(2))
            self._releaser.sendall(b"PING\r\n")
            self._releaser.recv(100)  # both are accepted now, in the order in which they came
            self._waiting.sendall(ask.encode())

        def finish(self) -> str:
            with self._releaser as releaser:
                try:
                    releaser.sendall(self._release)
                except OSError as problem:
                    return f"the connection that releases it: {problem}"
                return _read_answer(self._waiting, self._answer)


class NotBegun(Exception):
    """The request that was to be in flight never was."""


def _expect_held(began: dict, server: int) -> None:
    if began["outcome"] != "ok" or began["pid"] != server:
        raise NotBegun(f"{began}, but pid {server} was to hold it")


def _read_answer(connection: socket.socket, expected: bytes) -> str:
    answer = b""
    with connection:
        try:
            while expected not in answer:
                chunk = connection.recv(65536)
                if not chunk:
                    return f"closed after {answer[-80:]!r}"
                answer += chunk
        except OSError as problem:
            return f"{problem} after {answer[-80:]!r}"
    return "ok"
