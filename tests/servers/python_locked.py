"""A Python server that locks its pid file (flock) and ends when it is locked: nothing but the lock is in the way."""

from harness.in_flight import Download
from harness.server import Server

SERVER = Server(
    title="python3, locked pid file",
    packages=["python3"],
    version=["/usr/bin/python3", "--version"],
    command=["/usr/bin/python3", "@PROGRAMS@/locked_pid_file.py", "@PORT@", "@DIR@/server.pid"],
    url="http://127.0.0.1:@PORT@/",
    files={"site/index.html": "hello\n"},
    in_flight=[Download("/large", "site/large")],
    environment={"CONTINUITY_HIDE": "@DIR@/server.pid"},
    pid_file="@DIR@/server.pid",
    to_know="`CONTINUITY_HIDE` names its pid file, which it locks",
)
