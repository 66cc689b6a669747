"""What is found out: on the terminal while it grows, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Goal:
    what: str
    wanted: str
    found: str
    keeps: bool | str  # or "unclear": missed by no more than chance would explain


@dataclass
class Sheet:
    lines: list[str] = field(default_factory=list)  # of the page
    goals: list[Goal] = field(default_factory=list)
    slower: list[str] = field(default_factory=list)  # in what we are, each a sentence
    pictures: dict[str, str] = field(default_factory=dict)  # by file name
    headlines: list[str] = field(default_factory=list)  # for the README
    commands: list[str] = field(default_factory=list)  # what a reader can run to see the same

    def section(self, title: str) -> None:
        print(f"\n{title}", flush=True)
        self.lines += [f"## {title}", ""]

    def say(self, *texts: str) -> None:
        for text in texts:
            self.lines += [text, ""]

    def fault(self, where: str, what: str) -> None:
        """What was to be measured and was not."""
        what = " ".join(what.split())
        print(f"  not measured: {where}: {what}", flush=True)
        self.say(f"**Not measured**: {where}: {what}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)
        alignment = ["---", *["---:"] * (len(columns) - 1)]
        self.lines += ["| " + " | ".join(map(str, row)) + " |" for row in [columns, alignment, *rows]]
        self.lines.append("")

    def picture(self, name: str, drawn: str, about: str) -> None:
        self.pictures[name] = drawn
        self.lines += [f"![{about}]({name})", ""]

    def goal(self, what: str, wanted: str, found: str, keeps: bool | str) -> None:
        self.goals.append(Goal(what, wanted, found, keeps))
        verdict = {True: "kept", False: "MISSED"}.get(keeps, keeps)
        print(f"  goal: {what} {wanted}: {found}: {verdict}", flush=True)


# ---- Figures as they are read ----------------------------------------------------------

def time_of(nanoseconds: float) -> str:
    """With three digits at most."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(nanoseconds) >= size:
            return f"{three_digits(nanoseconds / size)} {unit}"
    return f"{nanoseconds:.0f} ns"


def three_digits(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def grouped(value: float) -> str:
    return f"{value:,.0f}"
