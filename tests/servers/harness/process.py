"""One start of a server's command: the processes that come of it, and their end.

Each start has a root of its own (family.py), from which all its processes
descend, however they are forked and whatever session or group they move to.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_family = Path(__file__).with_name("family.py")
_tcp_listen = "0A"
# Where its descriptors are; in the first of these a server may have some of its own.
library_numbers = frozenset((*range(32, 64), *range(224, 256), *range(992, 1024)))


def _children_of_all() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            # Fields after the command, which may contain anything: state, parent.
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
    return children


def tcp_sockets(*, listening: bool) -> set[str]:
    """Those that listen, or all others, as links of /proc/PID/fd name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            state, inode = line.split()[3:10:6]
            if (state == _tcp_listen) == listening:
                found.add(f"socket:[{inode}]")
    return found


def environment_without_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CONTINUITY_")}


class Process:
    def __init__(self, command: list[str], environment: dict[str, str], preload: Path | str | None, directory: Path,
                 output: Path) -> None:
        self._output = output
        # Only the command runs under the library, not its root.
        loaded = ["/usr/bin/env", f"LD_PRELOAD={preload}"] if preload else []
        with output.open("wb") as sink:
            self._root = subprocess.Popen([sys.executable, "-IS", str(_family), *loaded, *command], env=environment,
                                          cwd=directory, stdin=subprocess.DEVNULL, stdout=sink,
                                          stderr=subprocess.STDOUT, start_new_session=True)
        self.pid = self._root.pid  # stands for all of them
        self.descriptor = os.pidfd_open(self.pid)  # readable once the last of them has ended

    def ended(self, seconds: float = 0) -> bool:
        """Whether all of its processes end within so many seconds."""
        return bool(select.select([self.descriptor], [], [], max(seconds, 0))[0])

    def top(self) -> list[int]:
        """The command itself, and those of its processes that have lost their parent."""
        return _children_of_all().get(self.pid, [])

    def members(self) -> list[int]:
        """Its processes, without the root."""
        children = _children_of_all()
        found = list(children.get(self.pid, []))
        for member in found:  # it grows meanwhile
            found += children.get(member, [])
        return found

    def library_descriptors(self) -> int:
        """How many the library has in that of its processes where it has most. A server's own may be
        among them, but no connection."""
        found = []
        for member in self.members():
            links = []
            for number in library_numbers:
                with contextlib.suppress(OSError):  # there is none, or the process has ended
                    links.append(os.readlink(f"/proc/{member}/fd/{number}"))
            found.append(links)
        connections = tcp_sockets(listening=False)
        return max((sum(link not in connections for link in links) for links in found), default=0)

    def how_it_ended(self) -> str:
        """How the command itself ended."""
        status = self._root.wait()
        return f"exit {status}" if status >= 0 else signal.Signals(-status).name

    def last_words(self) -> str:
        """What it said about an address in use, else its last line."""
        lines = [line.strip() for line in self._output.read_text(errors="replace").split("\n") if line.strip()]
        telling = [line for line in lines if "in use" in line or "EADDRINUSE" in line]
        return (telling or lines or ["it said nothing"])[-1][-200:]

    def tell(self, number: int, answer: str, seconds: float) -> bool:
        """Sends a signal to those at the top. Whether the answer comes in their output."""
        signal_all(self.top(), number)
        deadline = time.monotonic() + seconds
        while answer not in self._output.read_text(errors="replace"):
            if self.ended(0.02) or time.monotonic() >= deadline:
                return False
        return True

    def terminate(self) -> None:
        """As an operator would: SIGTERM to those at the top."""
        signal_all(self.top(), signal.SIGTERM)

    def destroy(self) -> None:
        deadline = time.monotonic() + 10
        while not self.ended(0.01) and time.monotonic() < deadline:
            signal_all(self.members(), signal.SIGKILL)
        self._root.kill()
        self._root.wait()
        os.close(self.descriptor)


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has ended already
