"""What is compared: servers that are restarted in their own way, and under the library.

Each serves @PORT@ and a second address, @SECOND@, which the cell puts into commands and
configurations as it does with the words of the harness. An upgrade is what an operator or a
deploy script does, step by step.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.server import Server, known_servers

if TYPE_CHECKING:
    from cell import Cell

# Between the steps of nginx's upgrade: as long as the library's probation.
look_around = 5.0
start_patience = 5.0


@dataclass(frozen=True, eq=False)
class System:
    title: str
    server: Server
    steps: str  # of an upgrade, for people
    upgrade: Callable[[Cell], None]
    is_ours: bool = False
    dies: str = "the new process"  # what is killed when "the new process" is


def _configured(server: Server, file: str, what: str, instead: str) -> Server:
    return replace(server, files={**server.files, file: server.files[file].replace(what, instead)})


def _haproxy(server: Server) -> Server:
    first = "    bind 127.0.0.1:@PORT@"
    return _configured(server, "haproxy.cfg", first, f"{first}\n    bind 127.0.0.1:@SECOND@")


def _haproxy_with_socket(server: Server) -> Server:
    socket = "    stats socket @DIR@/haproxy.sock mode 600 level admin expose-fd listeners"
    return _configured(server, "haproxy.cfg", "global\n", f"global\n{socket}\n")


def _nginx(server: Server) -> Server:
    first = "    listen 127.0.0.1:@PORT@;"
    return _configured(server, "nginx.conf", first, f"{first}\n    listen 127.0.0.1:@SECOND@;")


def _nginx_daemon(server: Server) -> Server:
    """USR2 is for daemons: one whose first parent is alive takes itself for the new one, and ignores it."""
    # For hang.c: an nginx that is started by nginx has no other environment.
    kept = "env LD_PRELOAD;\nenv FAILURES_HANG;\n"
    command = ["daemon on;" if word == "daemon off;" else word for word in server.command]
    return replace(_configured(server, "nginx.conf", "events ", f"{kept}events "), command=command)


def _flip_server(built: Path) -> Server:
    package = "golang-github-cloudflare-tableflip-dev"
    return Server(
        title="Go, tableflip", packages=["golang-go", package],
        version=["/usr/bin/dpkg-query", "-W", "-f", "${Version}", package],
        command=[str(built / "failures" / "flip"), "@DIR@/addresses"], url="http://127.0.0.1:@PORT@/",
        files={"addresses": "127.0.0.1:@PORT@\n127.0.0.1:@SECOND@\n"})


def _tiny_server(built: Path) -> Server:
    return Server(
        title="tiny-server", packages=[], version=[],
        command=[str(built / "tests" / "process" / "tiny-server"), "epoll-level", "127.0.0.1:@PORT@",
                 "127.0.0.1:@SECOND@"],
        connect="127.0.0.1:@PORT@", send="hello\\n", expect="pid=")


def again(cell: Cell) -> None:
    cell.start()


def tell(number: int) -> Callable[[Cell], None]:
    return lambda cell: cell.tell(cell.main, number)


def _haproxy_by_socket(cell: Cell) -> None:
    cell.start("-x", "@DIR@/haproxy.sock", "-sf", str(cell.main))


def nginx_by_signals(system: System, seconds: float) -> System:
    """As nginx's documentation has it, each step if the one before has worked; so long between the last two."""
    def upgrade(cell: Cell) -> None:
        cell.tell(cell.main, signal.SIGUSR2)
        if _await_other_master(cell):
            cell.tell(cell.main, signal.SIGWINCH)
            cell.pause(seconds)
            if _other_master(cell):
                cell.tell(cell.main, signal.SIGQUIT)

    steps = (f"USR2 to the master; when `nginx.pid` names another one, WINCH to the old; {seconds:g} s later, if "
             "that other one still lives, QUIT to the old")
    return replace(system, steps=steps, upgrade=upgrade)


def _await_other_master(cell: Cell) -> bool:
    deadline = time.monotonic() + start_patience
    while not _other_master(cell) and time.monotonic() < deadline:
        cell.pause(0.01)
    return _other_master(cell)


def _other_master(cell: Cell) -> bool:
    """Whether the pid file names a living process, and not the old master."""
    try:
        named = int((cell.place.directory / "nginx.pid").read_text())
    except (OSError, ValueError):
        return False
    return named != cell.main and Path(f"/proc/{named}").exists()


def known_systems(built: Path) -> dict[str, System]:
    known = known_servers()
    haproxy, haproxy_w = (_haproxy(known[name]) for name in ("haproxy", "haproxy-master-worker"))
    nginx = _nginx(known["nginx"])
    return {
        "haproxy-reload": System(
            "haproxy -W, reload", haproxy_w, "SIGUSR2 to the master, which runs itself again with "
            "`-x` and `-sf`", tell(signal.SIGUSR2), dies="the new worker"),
        "haproxy-x-sf": System(
            "haproxy -x -sf", _haproxy_with_socket(haproxy),
            "the same command with `-x haproxy.sock -sf PID`", _haproxy_by_socket),
        "nginx-signals": nginx_by_signals(System(
            "nginx, USR2 WINCH QUIT", _nginx_daemon(nginx), "", again, dies="the new master and its workers"),
            look_around),
        "tableflip": System(
            "Go, tableflip", _flip_server(built), "SIGHUP, on which it calls `Upgrade()`", tell(signal.SIGHUP)),
        "continuity-haproxy-w": System(
            "haproxy -W, Continuity", haproxy_w, "the same command again", again, True,
            "the new master and its worker"),
        "continuity-haproxy": System(
            "haproxy, Continuity", haproxy, "the same command again", again, True),
        "continuity-nginx": System(
            "nginx, Continuity", nginx, "the same command again", again, True,
            "the new master and its workers"),
        "continuity-tiny": System(
            "tiny-server, Continuity", _tiny_server(built), "the same command again", again, True),
    }
