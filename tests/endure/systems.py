"""What is restarted a thousand times: servers with as many processes as they had in the last generation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.server import Server, known_servers


@dataclass(frozen=True)
class Leak:
    """Bash, run before the server in the same process, that leaves something more behind at each start."""

    title: str
    shown_by: str  # the count
    script: str


LEAKS = [
    Leak("leaves a file behind", "files", 'mktemp "@DIR@/left.XXXXXX" >/dev/null'),
    Leak("leaves a descriptor behind", "descriptors, file",
         "for ((i = 0; i < @GENERATION@; ++i)); do exec {left}</dev/null; done"),
    Leak("has more in memory", "memory",
         "for ((i = 0; i < 2 * @GENERATION@; ++i)); do export LEFT_$i=$(head -c 100000 /dev/zero | tr '\\0' x); done"),
]


def known_systems(built: Path) -> dict[str, Server]:
    known = known_servers()
    nginx, prefork = known["nginx"], known["apache-prefork"]
    four = {name: text.replace("worker_processes 2", "worker_processes 4") for name, text in nginx.files.items()}
    # With spare ones, or more at times, nobody could say how many processes there are to be.
    fixed = {name: text.replace("MinSpareServers 4\nMaxRequestWorkers 24", "MaxSpareServers 12\nMaxRequestWorkers 12")
             for name, text in prefork.files.items()}
    threads = Server(
        title="accept loop, threads", packages=[], version=["/usr/bin/env", "--version"],
        command=[str(built / "tests" / "process" / "tiny-server"), "threads", "127.0.0.1:@PORT@"],
        connect="127.0.0.1:@PORT@", send="hello\\n", expect="pid=")
    systems = {
        "nginx": replace(nginx, title="nginx, 2 workers"),
        "nginx-4": replace(nginx, title="nginx, 4 workers", files=four),
        "apache-prefork": replace(prefork, files=fixed),
        "redis": known["redis-tcp"],
        "threads": threads,
    }
    # What servers have at work beside is the matter of scripts/servers.
    return {name: replace(server, in_flight=[], prepare=[*server.prepare, ["/bin/mkdir", "-m", "1777", "@DIR@/tmp"]],
                          environment={**server.environment, "TMPDIR": "@DIR@/tmp"})
            for name, server in systems.items()}


def with_leak(server: Server, leak: Leak) -> Server:
    return replace(server, command=["/bin/bash", "-c", f'{leak.script}; exec "$@"', "bash", *server.command])
