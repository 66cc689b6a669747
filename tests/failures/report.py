"""The table, on the terminal while it grows and as a page."""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter
from pathlib import Path

from harness.report import processor, shown_command

import cell
from cell import Seen
from scenarios import Scenario
from systems import System

_root = Path(__file__).resolve().parents[2]
_columns = ("", "refused", "reset", "timed out", "with the dead", "no answer for", "at the end serves")
_widths = (26, 7, 5, 9, 13, 34, 20)


class Table:
    def __init__(self) -> None:
        self.results: list[tuple[Scenario, System, list[Seen]]] = []
        self._scenario: Scenario | None = None

    def add(self, scenario: Scenario, system: System, runs: list[Seen]) -> None:
        self.results.append((scenario, system, runs))
        if scenario is not self._scenario:
            print(f"\n{scenario.title}", flush=True)
            _print(_columns)
        self._scenario = scenario
        _print(row(system, runs))
        for run in runs:
            if run.fault:
                print(f"    not tried: {run.fault}", flush=True)
            if run.kept:
                print(f"    {'; '.join(run.examples[:3])}\n    its logs are in {run.kept}", flush=True)

    def summary(self) -> int:
        ours = [runs for _, system, runs in self.results if system.is_ours]
        right = sum(all(run.is_right for run in runs) for runs in ours)
        tried = all(not run.fault for _, _, runs in self.results for run in runs)
        print(f"\n{right} of {len(ours)} rows of servers under Continuity as they must be")
        return 0 if right == len(ours) and tried else 1

    def page(self) -> str:
        lines = [*_head(self.results)]
        for scenario in dict.fromkeys(scenario for scenario, _, _ in self.results):
            rows = [row(system, runs) for one, system, runs in self.results if one is scenario]
            lines += [f"## {scenario.title[0].upper()}{scenario.title[1:]}", "", scenario.how, ""]
            lines += ["| " + " | ".join(cells) + " |" for cells in (_columns, ("---",) * len(_columns), *rows)]
            lines.append("")
        return "\n".join(lines)


def row(system: System, runs: list[Seen]) -> tuple[str, ...]:
    tried = [run for run in runs if not run.fault]
    if len(tried) < len(runs):
        return (system.title, *["not tried"] * (len(_columns) - 1))
    at_the_end = Counter(run.at_the_end for run in runs)
    return (system.title, *(str(max(getattr(run, name) for run in runs))
                            for name in ("refused", "reset", "timed_out", "with_the_dead")),
            silence(runs), ", ".join(at_the_end))


def silence(runs: list[Seen]) -> str:
    if any(run.at_the_end == "nobody" for run in runs):
        return f"until somebody acts ({cell.window:.0f} s watched)"
    return f"{max(run.silence for run in runs):.2f} s"


def _print(cells: tuple[str, ...]) -> None:
    print("  " + "  ".join(text.ljust(width) for text, width in zip(cells, _widths)).rstrip(), flush=True)


def _head(results: list[tuple[Scenario, System, list[Seen]]]) -> list[str]:
    system_name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    repeats = max(len(runs) for _, _, runs in results)
    systems = dict.fromkeys(system for _, system, _ in results)
    return [
        "# When a restart fails",
        "",
        "Written by `scripts/failures --write docs/failures.md`; do not edit.",
        "",
        f"Servers of Debian's packages which can be upgraded without losing a connection, and how that goes when the "
        f"new version is a bad one; beside them servers restarted under Continuity with its defaults, by running the "
        f"same command again. Everything was tried {repeats} times, and each column shows its worst.",
        "",
        f"{cell.clients} clients open a fresh connection for each request, {cell.pause_between} after the one before, "
        f"and give it {cell.request_patience}. No supervisor starts anything again: what one would do, and when, is "
        "its own affair.",
        "",
        "- *refused*, *reset* (or ended before the answer did), *timed out*: requests. What is reset had not been "
        "accepted by anybody.",
        "- *with the dead*: requests in the hands of the killed process, accepted by it: lost for anybody, and in no "
        "other column.",
        "- *no answer for*: the longest time in which no new connection was answered; "
        f"*until somebody acts*: nobody was answered {cell.window:.0f} s later either.",
        "- *at the end serves*: the old process or the new one, as seen from outside; where runs differ, all that "
        "was seen.",
        "",
        "A new process that dies later than this is another matter: when the probation (`CONTINUITY_PROBATION`, 5 s) "
        "is over the old one lets go, as nginx's does after QUIT, and nobody is left to come back.",
        "",
        f"{datetime.date.today()}, {system_name}, Linux {platform.release()}, {processor()}, {os.cpu_count()} "
        "processors, which other work kept busy: times are rather too long than too short. "
        "The load: `continuity-load --owners --clients "
        f"{cell.clients} --pause {cell.pause_between} --timeout {cell.request_patience}`; configurations: "
        "`tests/failures/systems.py`.",
        "",
        "| | version | started as | upgraded by | of it is killed |",
        "|---|---|---|---|---|",
        *(f"| {system.title} | {_version(system)} | `{_shown(system)}` | {system.steps} | {system.dies} |"
          for system in systems),
        "",
    ]


def _version(system: System) -> str:
    return system.server.installed_version() if system.server.version else "of this tree"


def _shown(system: System) -> str:
    command = shown_command(system.server).replace("@SECOND@", "8081").replace(f"{_root}/", "")
    return f"LD_PRELOAD=libcontinuity.so {command}" if system.is_ours else command
