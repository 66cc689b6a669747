"""The page with everything, its pictures, and the few figures that the README has of it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.report import processor, shown_command
from harness.server import Missing

from session import load_processor, server_processor, source
from sheet import Goal, Sheet
from stage import Failure
from systems import System

readme_begins, readme_ends = "<!-- scripts/compare: -->", "<!-- :scripts/compare -->"
busy = 0.5  # of the processors, by others, before we begin


@dataclass
class Conditions:
    """In which all was measured."""

    quick: bool
    load: float  # of others, when we began
    commit: str
    seconds: float = 0

    @staticmethod
    def now(quick: bool) -> Conditions:
        said = subprocess.run(["git", "describe", "--always"], cwd=source, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        return Conditions(quick, os.getloadavg()[0], said.stdout.strip() or "unknown")

    def note_the_end(self, seconds: float) -> None:
        self.seconds = seconds

    def is_quiet(self) -> bool:
        return self.load <= busy * (os.cpu_count() or 1)

    def complaint(self) -> str:
        if not self.is_quiet():
            return f"this machine is busy with other things (load {self.load:.1f}); do not trust the figures"
        return "" if load_processor != server_processor else "there is one processor, for clients and servers"

    def described(self) -> str:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        state = "" if self.is_quiet() else f", **busy with other things** (load {self.load:.1f} before we began)"
        return (f"{datetime.date.today()}, {system}, Linux {platform.release()}, {processor()}, {os.cpu_count()} "
                f"processors{state}; Continuity at `{self.commit}`. `{self.command()}` took "
                f"{self.seconds / 60:.0f} minutes.")

    def command(self) -> str:
        return "scripts/compare --quick" if self.quick else "scripts/compare"


def write(sheet: Sheet, conditions: Conditions, systems: Iterable[System], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "numbers.md").write_text(text_of(sheet, conditions, systems))
    for name, drawn in sheet.pictures.items():
        (folder / name).write_text(drawn)
    print(f"written: {folder / 'numbers.md'}")


def text_of(sheet: Sheet, conditions: Conditions, systems: Iterable[System]) -> str:
    warning = ["Of few repeats, to show what the page is like: the figures may be off by far.", ""]
    lines = [
        "# Numbers", "",
        f"Written by `{conditions.command()}`; do not edit.", "",
        "Continuity beside the same servers without it, and beside what else restarts them. All of it was measured in "
        "one run on one machine, and what is compared was measured by turns, so that the machine's mood meets both. "
        "Times are rounded to three digits.", "",
        *(warning if conditions.quick else []),
        conditions.described(), "",
        f"The clients ran on processor {load_processor}, the servers of the steady state on processor "
        f"{server_processor}, those that are restarted wherever the kernel put them; all with nice -20, where that is "
        "allowed.", "",
        "## Goals", "",
        *table(("goal", "", "found", ""), [goal_row(goal) for goal in sheet.goals]),
        "*Unclear*: missed, by no more than chance explains.", "",
        "## What it is slower at", "",
        *(f"- {text}" for text in sheet.slower or ["Nothing that was measured here."]), "",
        *sheet.lines,
        "## What was run", "",
        *table(("", "version", "started as", "restarted by"),
               [(system.title, version(system), f"`{shown(system)}`", system.steps or "-")
                for system in once_each(systems)]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    columns = list(columns)
    return ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows)] + [""]


def goal_row(goal: Goal) -> tuple[str, ...]:
    verdict = {True: "reached", False: "**missed**"}.get(goal.keeps, goal.keeps)
    return goal.what, goal.wanted, goal.found, str(verdict)


def once_each(systems: Iterable[System]) -> Iterable[System]:
    return {system.title: system for system in systems}.values()


def version(system: System) -> str:
    if not system.server.version:
        return "of this tree"
    try:
        return system.server.installed_version()
    except Missing:
        return "not installed"


def shown(system: System) -> str:
    command = shown_command(system.server).replace("@SECOND@", "8081").replace(f"{source}/", "")
    return f"LD_PRELOAD=libcontinuity.so {command}" if system.is_ours else command


def write_headlines(sheet: Sheet, conditions: Conditions, readme: Path) -> None:
    """Between two marks; everything else is left as it is."""
    text = readme.read_text()
    place = re.compile(re.escape(readme_begins) + ".*" + re.escape(readme_ends), re.DOTALL)
    if not place.search(text):
        raise Failure(f"{readme} has no place for figures")
    lines = [readme_begins, "", "![the longest time without an answer at the hand-over, by server and way]"
             "(docs/numbers-restart.svg)", "", *(f"- {line}" for line in sheet.headlines), "",
             conditions.described(), "", readme_ends]
    readme.write_text(place.sub(lambda _: "\n".join(lines), text))
