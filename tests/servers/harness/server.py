"""What the trial has to know about a server, and the place in which one runs.

Adding a server means adding one file `tests/servers/NAME.py` that ends with
`SERVER = Server(...)`, or, for one that can be run in several ways, with
`SERVERS = {"NAME": Server(...), ...}`. Commands, files and addresses are written with these
words in them, which the place fills in:

    @DIR@         a fresh directory, readable by everybody, where the server is started
    @PORT@        a TCP port on 127.0.0.1 chosen by the kernel
    @PORT2@       another one
    @PROGRAMS@    the folder of the example programs that some servers run
    @GENERATION@  in commands and environment: 1 for the first start, 2 for the second, ...
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

folder = Path(__file__).resolve().parent.parent
programs = folder / "programs"


class Missing(Exception):
    """A server that cannot be tried because it is not installed."""


@dataclass(frozen=True)
class Server:
    title: str
    packages: list[str]  # of Debian; scripts/servers installs them
    version: list[str]  # a command that prints it; it also proves that the server is installed
    command: list[str]

    # What the clients do: `url` for HTTP, `connect` with `url_path` for HTTP on a UNIX socket, or `connect` with
    # `send` and `expect`.
    url: str = ""
    connect: str = ""
    url_path: str = ""
    send: str = ""
    expect: str = ""

    files: dict[str, str] = field(default_factory=dict)  # written into @DIR@
    prepare: list[list[str]] = field(default_factory=list)  # commands run once, before the first start
    environment: dict[str, str] = field(default_factory=dict)
    in_flight: list = field(default_factory=list)  # beside two half-sent requests; see in_flight.py
    keeps_alive: bool = True  # a second request on one connection is part of the protocol
    to_know: str = ""  # what a user has to set or expect, for the table
    pid_file: str = ""  # has to name the newest process whatever the older ones do as they leave
    seconds_to_start: float = 20
    # What a predecessor is told while it drains, and how it says that it has heard: a retired server that reloads
    # must not take its listeners back.
    reload_signal: int = 0
    reload_says: str = ""

    def client_arguments(self) -> list[str]:
        if self.url:
            return ["--url", self.url]
        if self.url_path:
            return ["--connect", self.connect, "--url-path", self.url_path]
        return ["--connect", self.connect, "--send", self.send, "--expect", self.expect]

    def installed_version(self) -> str:
        if shutil.which(self.version[0]) is not None:
            # Not here: a module named like one of our descriptions would be found first.
            shown = subprocess.run(self.version, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, timeout=60)
            number = re.search(r"\d+(\.\d+)*", shown.stdout)
            if shown.returncode == 0 and number:
                return number.group()
        raise Missing(f"{self.title}: not installed; the packages are {' '.join(self.packages)}")


class Place:
    """A fresh directory and a free port for one trial; gone afterwards unless kept."""

    def __init__(self, server: Server) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="continuity-servers-"))
        self.directory.chmod(0o755)
        self._reservations = [_reserve_port(), _reserve_port()]
        self.port, self.port2 = (reservation.getsockname()[1] for reservation in self._reservations)
        for name, text in server.files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.fill(text))

    def fill(self, text: str, generation: int = 1) -> str:
        words = {"@DIR@": str(self.directory), "@PORT@": str(self.port), "@PORT2@": str(self.port2),
                 "@PROGRAMS@": str(programs), "@GENERATION@": str(generation)}
        return re.sub("|".join(words), lambda word: words[word.group()], text)

    def fill_all(self, texts: list[str], generation: int = 1) -> list[str]:
        return [self.fill(text, generation) for text in texts]

    def release_port(self) -> None:
        for reservation in self._reservations:
            reservation.close()

    def remove(self) -> None:
        self.release_port()
        shutil.rmtree(self.directory, ignore_errors=True)


def _reserve_port() -> socket.socket:
    """Bound but not listening, with SO_REUSEADDR.

    The kernel gives the port to nobody else meanwhile, and lets a server that
    sets the same option bind it.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def known_servers() -> dict[str, Server]:
    found = {}
    for path in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        one = {path.stem.replace("_", "-"): module.SERVER} if hasattr(module, "SERVER") else {}
        found |= one or module.SERVERS
    return found
