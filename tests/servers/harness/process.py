"""One start of a server's command: the processes that come of it, and their end.

Each runs in a session of its own, so that a server which signals its process
group cannot reach another generation, and so that whatever it forks is found.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path


def _session_members(session: int) -> list[int]:
    members = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            # Fields after the command, which may contain anything: state, ppid, pgrp, session.
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.append(int(name))
    return members


class Process:
    def __init__(self, command: list[str], environment: dict[str, str], directory: Path, output: Path) -> None:
        self._output = output
        with output.open("wb") as sink:
            self._child = subprocess.Popen(command, env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                                           stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        self.pid = self._child.pid
        self.descriptor = os.pidfd_open(self.pid)  # readable once the process has ended

    def ended(self, seconds: float = 0) -> bool:
        """Whether the process ends within so many seconds."""
        return bool(select.select([self.descriptor], [], [], max(seconds, 0))[0])

    def gone(self, seconds: float = 0) -> bool:
        """Whether it and all that it forked end within so many seconds."""
        deadline = time.monotonic() + seconds
        if not self.ended(seconds):
            return False
        while _session_members(self.pid):  # nothing announces the end of processes that are not our children
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def how_it_ended(self) -> str:
        status = self._child.wait()
        return f"exit {status}" if status >= 0 else signal.Signals(-status).name

    def last_words(self) -> str:
        """What it said about an address in use, else its last line."""
        lines = [line.strip() for line in self._output.read_text(errors="replace").split("\n") if line.strip()]
        telling = [line for line in lines if "in use" in line or "EADDRINUSE" in line]
        return (telling or lines or ["it said nothing"])[-1][-200:]

    def terminate(self) -> None:
        self._child.terminate()

    def destroy(self) -> None:
        for pid in _session_members(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._child.kill()
        self._child.wait()
        os.close(self.descriptor)
