"""Prints what trials showed: one line each while they run, and as a page for the documentation."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

from .trial import Outcome, probation

columns = ("server", "version", "restarts", "requests", "failed", "stale", "in flight", "take-over p50/p99 µs",
           "old one left p50/max ms", "exits", "without the library", "")
_widths = (22, 9, 8, 8, 6, 5, 9, 20, 23, 15, 19, 6)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _pair(values: list[float], second: float) -> str:
    return f"{percentile(values, 0.5):.0f} / {percentile(values, second):.0f}" if values else "-"


def row(outcome: Outcome | None, control: Outcome | None) -> tuple[str, ...]:
    lost = "-"
    if control is not None:
        lost = "not tried" if control.fault else "fails, as it must" if control.something_lost else "loses nothing!"
    shown = outcome or control
    right = (outcome is None or outcome.nothing_lost) and (control is None or control.something_lost)
    if outcome is None:
        return (shown.server.title, shown.version, *["-"] * 8, lost, "ok" if right else "FAILED")
    return (shown.server.title, shown.version, str(shown.restarts), str(shown.requests), str(shown.failed),
            str(shown.stale), f"{shown.in_flight_whole}/{shown.in_flight}", _pair(shown.take_overs, 0.99),
            _pair(shown.left_after, 1.0), ", ".join(f"{n} {how}" for how, n in shown.exits.items()) or "-", lost,
            "ok" if right else "FAILED")


def line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _widths)).rstrip()


def _processor() -> str:
    for entry in Path("/proc/cpuinfo").read_text().splitlines():
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.machine()


def page(rows: list[tuple[str, ...]], restarts: int, clients: int) -> str:
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    cells = ["| " + " | ".join(entry) + " |" for entry in (columns, ("---",) * len(columns), *rows)]
    return "\n".join([
        "# Restarts of real servers",
        "",
        "Written by `scripts/servers --write docs/servers.md`; do not edit.",
        "",
        f"Unmodified servers, each restarted {restarts} times by running it again, under {clients} clients that open a",
        "fresh connection per request. At each restart two half-sent requests, a kept connection and, where the server",
        "can, a download or a request it works on are in flight. *failed* counts refused, reset, closed, cut and hung",
        "requests; *stale* those begun after a take-over and served by an older process; *in flight* is answered whole",
        "of begun; *old one left* is the time from the end of a process's last connection to its exit",
        f"(`CONTINUITY_PROBATION` is {probation * 1000:.0f} ms here). Without the library the same trial has to fail.",
        "",
        f"{datetime.date.today()}, {system}, Linux {platform.release()}, {_processor()}, {os.cpu_count()} processors.",
        "",
        *cells,
        "",
    ])
