"""Ways to restart one and the same server: by the library, and by its own means.

Groups of `System`s (tests/failures/systems.py), each a server that answers "pid=NUMBER" and
an upgrade as an operator or a deploy script does it.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import systems
from harness.server import Server, known_servers
from session import replaced
from systems import System, known_systems

if TYPE_CHECKING:
    from restarts import Restart

programs = Path(__file__).resolve().parent / "programs"

# As the library's probation here; half a second is enough to see that the new one serves.
look_around = 0.5


@dataclass(frozen=True, eq=False)
class Group:
    title: str
    ways: list[System]
    plain: System | None  # what its own start-up takes; None: as long as the first of each way
    interval: int  # microseconds between two connections


def groups(built: Path) -> list[Group]:
    known = known_systems(built)
    nginx = ('root @DIR@/site;', 'return 200 "pid=$pid\\n";')
    haproxy = ('string "hello\\n"', 'lf-string "pid=%pid\\n"')
    return [
        _group("nginx", [
            _saying_pid(known["continuity-nginx"], nginx),
            systems.nginx_by_signals(_saying_pid(known["nginx-signals"], nginx), look_around),
            System("nginx, HUP", replaced(known["continuity-nginx"].server, nginx), "SIGHUP to the master",
                   systems.tell(signal.SIGHUP))]),
        _group("haproxy", [
            _saying_pid(known["continuity-haproxy"], haproxy),
            _saying_pid(known["haproxy-x-sf"], haproxy),
            _saying_pid(known["haproxy-reload"], haproxy),
            System("haproxy -sf", replaced(known["continuity-haproxy"].server, haproxy),
                   "the same command with `-sf PID`", lambda restart: restart.start("-sf", str(restart.main)))]),
        _gunicorn(),
        _perl(),
        _asking(built, known["tableflip"]),
    ]


def _group(title: str, ways: list[System], interval: int = 200) -> Group:
    return Group(title, ways, System(f"{title} alone", ways[0].server, "", systems.again), interval)


def _saying_pid(system: System, texts: tuple[str, str]) -> System:
    return replace(system, server=replaced(system.server, texts))


def _ours(title: str, server: Server) -> System:
    return System(title, server, "the same command again", systems.again, True)


def _gunicorn() -> Group:
    known = known_servers()["gunicorn"]
    command = ["/usr/bin/gunicorn", "--bind", "127.0.0.1:@PORT@", "--workers", "4", "--pythonpath", str(programs),
               "pages"]
    server = replace(known, command=command)
    return _group("gunicorn", [
        _ours("gunicorn, Continuity", server),
        System("gunicorn, USR2 TERM", server, "USR2 to the arbiter; TERM to the old one when workers of the new one "
               "answer", _gunicorn_by_signals),
        System("gunicorn, HUP", server, "HUP to the arbiter", systems.tell(signal.SIGHUP))], 2000)


def _gunicorn_by_signals(restart: Restart) -> None:
    restart.tell(restart.main, signal.SIGUSR2)
    if restart.await_new():
        restart.tell(restart.main, signal.SIGTERM)


def _perl() -> Group:
    package = "libserver-starter-perl"
    program = ["/usr/bin/perl", str(programs / "lines.pl")]
    server = Server(
        title="a server in Perl", packages=["perl"], version=["/usr/bin/perl", "-e", "print substr $^V, 1"],
        command=[*program, "@PORT@"], connect="127.0.0.1:@PORT@", send="\\n", expect="pid=")
    starter = replace(
        server, packages=["perl", package], version=["/usr/bin/dpkg-query", "-W", "-f", "${Version}", package],
        command=["/usr/bin/start_server", "--port=127.0.0.1:@PORT@", "--interval=1", "--", *program])
    return _group("a server in Perl", [
        _ours("Perl, Continuity", server),
        System("Perl, Server::Starter", starter, "HUP to `start_server`, which starts another one and, a second "
               "later, sends TERM to the old", systems.tell(signal.SIGHUP))], 500)


def _asking(built: Path, flip: System) -> Group:
    server = Server(
        title="`examples/epoll_server.cpp`", packages=[], version=[],
        command=[str(built / "bench" / "bench-asking"), "127.0.0.1:@PORT@"], connect="127.0.0.1:@PORT@", send="\\n",
        expect="pid=")
    # It asks for itself: nothing is preloaded.
    ours = System("C++, SocketUpgrader", server, "the same command again", systems.again)
    return replace(_group("servers that ask", [ours, flip]), plain=None)


def is_ours(system: System) -> bool:
    return system.is_ours or "SocketUpgrader" in system.title


def request_of(system: System) -> str:
    return r"GET / HTTP/1.0\r\n\r\n" if system.server.url else r"\n"
