"""Prints what trials showed: one line each while they run, and as a page for the documentation."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
from pathlib import Path
from statistics import median

from .server import Server
from .trial import Outcome, probation

columns = ("server", "version", "restarts", "requests", "lost", "in flight", "take-over", "old one left", "exits",
           "without the library", "")
_widths = (27, 9, 8, 8, 5, 9, 9, 12, 22, 19, 6)
_page_columns = ("server", "version", "started as", "restarts", "requests", "lost", "take-over", "old one left",
                 "what to know")

# A trial under the library and one without it; either may have been left out.
Result = tuple[Outcome | None, Outcome | None]


def is_right(result: Result) -> bool:
    outcome, control = result
    return (outcome is None or outcome.nothing_lost) and (control is None or control.something_lost)


def row(result: Result) -> tuple[str, ...]:
    outcome, control = result
    without = "-"
    if control is not None:
        without = "not tried" if control.fault else "fails, as it must" if control.something_lost else "loses nothing!"
    shown = outcome or control
    exits = ", ".join(f"{n} {how}" for how, n in outcome.exits.items()) if outcome else ""
    measured = [str(outcome.restarts), str(outcome.requests), str(outcome.lost),
                f"{outcome.in_flight_whole}/{outcome.in_flight}", _milliseconds(outcome.take_overs),
                _milliseconds(outcome.left_after)] if outcome else ["-"] * 6
    return (shown.server.title, shown.version, *measured, exits or "-", without,
            "ok" if is_right(result) else "FAILED")


def line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _widths)).rstrip()


def page(results: list[Result], restarts: int, clients: int) -> str:
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    rows = [_page_row(result) for result in results]
    cells = ["| " + " | ".join(entry) + " |" for entry in (_page_columns, ("---",) * len(_page_columns), *rows)]
    return "\n".join([
        "# Restarts of real servers",
        "",
        "Written by `scripts/servers --write docs/servers.md`; do not edit.",
        "",
        f"Unmodified servers, each restarted {restarts} times under load by running the same command again.",
        f"{clients} clients open a fresh connection for each request and look from outside which process has it. At each",
        "restart two half-sent requests are in flight and, where the server can, a kept connection and a download or a",
        "request that it works on; one half-sent request lasts for three restarts. Without the library the same trial",
        "was made with each of them, and failed.",
        "",
        "- *lost*: requests refused, reset, closed, cut or hung; requests in flight not answered whole; connections",
        "  begun after a take-over and served by an older generation.",
        "- *take-over*: from READY to the answer that the old one has retired, as the new one logs it; median.",
        "- *old one left*: from the end of the last connection of a generation to the end of its last process; median.",
        f"  `CONTINUITY_PROBATION` was {probation * 1000:.0f} ms.",
        "",
        f"{datetime.date.today()}, {system}, Linux {platform.release()}, {processor()}, {os.cpu_count()} processors,",
        "which other work kept busy: times are rather too long than too short.",
        "",
        *cells,
        "",
    ])


def _page_row(result: Result) -> tuple[str, ...]:
    outcome = result[0]
    if outcome is None:
        raise ValueError("a page tells of trials under the library")
    notes = [outcome.server.to_know] if outcome.server.to_know else []
    if outcome.fault:
        notes.append(f"**not tried**: {outcome.fault}")
    elif not is_right(result):
        notes.append("**failed**: " + (outcome.failures or ["loses nothing without the library either"])[0])
    return (outcome.server.title, outcome.version, f"`{shown_command(outcome.server)}`", str(outcome.restarts),
            str(outcome.requests), str(outcome.lost), _milliseconds(outcome.take_overs),
            _milliseconds(outcome.left_after), "; ".join(notes).replace("|", "\\|").replace("\n", " "))


def shown_command(server: Server) -> str:
    """As a user would type it, in the directory of its files."""
    shown = shlex.join(server.command)
    for word, meaning in (("@DIR@/", ""), ("@DIR@", "."), ("@PROGRAMS@/", ""), ("@PROGRAMS@", "."), ("@PORT@", "8080"),
                          ("@GENERATION@", "N"), ("/usr/sbin/", ""), ("/usr/bin/", "")):
        shown = shown.replace(word, meaning)
    return shown


def _milliseconds(values: list[float]) -> str:
    if not values:
        return "-"
    middle = median(values)
    return f"{middle:.1f} ms" if middle < 10 else f"{middle:.0f} ms"


def processor() -> str:
    for entry in Path("/proc/cpuinfo").read_text().splitlines():
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.machine()
