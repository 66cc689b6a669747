"""The table of what runs showed: one line each."""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter

from harness.report import processor

import endurance
from counts import Counts, is_shared_memory_private
from endurance import Endurance, Killing

_columns = ("server", "what", "restarts", "requests", "lost", "with the dead", "no answer for", "processes", "threads",
            "descriptors", "ours", "listening", "shared", "rendezvous", "files", "memory", "")
_widths = (20, 26, 8, 8, 5, 13, 13, 9, 7, 11, 7, 9, 6, 10, 5, 22, 6)


def head() -> str:
    return "\n".join([
        f"{datetime.date.today()}, {platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')}, "
        f"Linux {platform.release()}, {processor()}, {os.cpu_count()} processors.",
        f"Counted after restart {endurance.base}, at every {endurance.between_counts}th and after the last: of one "
        f"number there was no other. Of memory the bound is {endurance.memory_bound_each} KiB for each process.",
        "" if is_shared_memory_private() else "Not counted: names in /dev/shm, which is everybody's here.",
        _line(_columns)])


def row(what: str, run: Endurance, is_right: bool) -> str:
    outcome, counts = run.outcome, list(run.counted.values())
    killed = run.killed if isinstance(run, Killing) else None
    done = outcome.restarts + (killed.all if killed else 0)
    of_the_dead = f"{killed.with_the_dead} + {killed.at_the_kill}" if killed else "-"
    silence = f"{max(killed.silences, default=0):.0f} ms" if killed else "-"
    return _line((outcome.server.title, what, str(done), str(outcome.requests), str(outcome.lost), of_the_dead, silence,
                  *(_seen(counts, name) for name in ("processes", "threads", "descriptors", "ours", "listening",
                                                     "shared", "rendezvous", "files")),
                  _memory(counts), "ok" if is_right else "FAILED"))


def kinds(counts: Counts) -> str:
    """What the descriptors are, and which of them are ours."""
    def named(counter: Counter) -> str:
        return ", ".join(f"{number} {kind}" for kind, number in sorted(counter.items())) or "none"

    return f"descriptors: {named(counts.descriptors)}; of them ours: {named(counts.ours)}"


def _seen(counts: list[Counts], name: str) -> str:
    values = [getattr(one, name) for one in counts]
    numbers = list(dict.fromkeys(one.total() if isinstance(one, Counter) else one for one in values))
    return " ".join(map(str, numbers[:3])) + (" ..." if len(numbers) > 3 else "") if numbers else "-"


def _memory(counts: list[Counts]) -> str:
    if not counts:
        return "-"
    seen = [one.memory for one in counts]
    return f"{seen[0]}, {seen[-1]}, at most {max(seen)} KiB"


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(cells, _widths)).rstrip()
