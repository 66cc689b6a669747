"""Waits for lines of the library's log, without asking again and again.

All generations append to one file; inotify wakes us when it grows.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import time
from pathlib import Path

from .process import Process

_libc = ctypes.CDLL(None, use_errno=True)
_in_modify = 0x2


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        path.chmod(0o666)  # for servers that leave root behind before they write
        self._notice = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._notice < 0 or _libc.inotify_add_watch(self._notice, os.fsencode(path), _in_modify) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def length(self) -> int:
        return self.path.stat().st_size

    def find(self, pattern: str, begin: int) -> re.Match | None:
        return re.search(pattern, self.path.read_bytes()[begin:].decode(errors="replace"), re.MULTILINE)

    def await_line(self, pattern: str, begin: int, writer: Process, seconds: float) -> re.Match | None:
        """The first line from there on that matches; None once the time is over or the writer has ended without it."""
        deadline = time.monotonic() + seconds
        while True:
            over = writer.ended() or time.monotonic() >= deadline
            found = self.find(pattern, begin)
            if found or over:
                return found
            select.select([self._notice, writer.descriptor], [], [], max(deadline - time.monotonic(), 0))
            try:
                os.read(self._notice, 4096)
            except BlockingIOError:
                pass

    def close(self) -> None:
        os.close(self._notice)
