"""Drives `continuity-load`: the clients that keep the server busy and judge it.

It opens a fresh connection per request, classifies each outcome, and finds for
every connection the process that serves it. Commands go to its standard input,
each is answered by one line of JSON.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Collection
from pathlib import Path

from .process import Process


class LoadFault(Exception):
    """The load client itself failed, so nothing can be said about the server."""


class Load:
    def __init__(self, program: Path, arguments: list[str], clients: int, errors: Path) -> None:
        command = [str(program), *arguments, "--clients", str(clients), "--owners"]
        with errors.open("wb") as sink:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink,
                                           text=True, bufsize=1)
        self._errors = errors
        self._answers: queue.Queue[str] = queue.Queue()
        self._asking = threading.Lock()  # answers come in the order of the commands
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._child.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, command: str, seconds: float = 30) -> dict:
        try:
            with self._asking:
                self._child.stdin.write(command + "\n")
                self._child.stdin.flush()
                answer = json.loads(self._answers.get(timeout=seconds))
        except (OSError, ValueError, queue.Empty) as problem:
            words = self._errors.read_text(errors="replace").strip()
            raise LoadFault(f"continuity-load, asked to {command!r}: {problem!r} {words}") from problem
        return answer

    def served_by(self, pids: Collection[int]) -> int:
        by_pid = self.ask("stats")["by_pid"]
        return sum(by_pid.get(str(pid), 0) for pid in pids)

    def await_served_by(self, pids: Collection[int], requests: int, seconds: float) -> bool:
        """Whether these processes serve so many requests more within the time."""
        wanted = self.served_by(pids) + requests
        deadline = time.monotonic() + seconds
        while self.served_by(pids) < wanted:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)  # the client is asked, it announces nothing
        return True

    def finish(self) -> dict:
        """Lets the requests in flight end; the counts of the whole run."""
        return self.ask("quit")

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._reader.join()
        self._child.stdout.close()
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            pass  # a command that was never read


def answers_within(program: Path, arguments: list[str], server: Process, seconds: float) -> bool:
    """Whether the server, which has just been started, answers before it ends and within the time."""
    deadline = time.monotonic() + seconds
    command = [str(program), *arguments, "--clients", "1", "--duration", "10ms"]
    while subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30).returncode != 0:
        if server.ended(0.02) or time.monotonic() >= deadline:
            return False
    return True
