"""What the library weighs: start-up, fork, memory, the file. Most of it is scripts/bench's."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from statistics import median

import footprint
from harness.server import known_servers
from session import Running, Session
from sheet import Sheet


class Recorder:
    """What a section of scripts/bench writes, as rows."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.rows: list[list[str]] = []
        self.about = ""

    def section(self, title: str) -> None:
        self.about = "" if title == "size" else title.partition(",")[0] + ", "

    def find(self, what: str) -> list[str]:
        return next(row for row in self.rows if row[0].endswith(what))

    def add(self, what: str, without: str, with_: str, difference: str, limit: str = "", keeps=None) -> None:
        what = self.about + what
        self.rows.append([what, without, with_, difference])
        if keeps is not None:
            self.sheet.goal(what, f"≤ {limit}", difference or with_, keeps)


@dataclass
class _Pid:
    pid: int


def measure(session: Session, sheet: Sheet) -> None:
    sheet.section("Weight")
    recorder = Recorder(sheet)
    footprint.measure_start(session.stage, recorder)
    footprint.measure_fork(session.stage, recorder)
    footprint.measure_size(session.stage, recorder)
    recorder.rows += [*workers(session), *symbols(session)]
    sheet.say("A program under the library, beside the same without it: `/bin/true`, which never has a listener; a "
              "server that forks; a server that waits, and one that has taken over; a worker of nginx. *A thread "
              "more*: what libc and the kernel ask of any program that has a second thread, as the library gives it.")
    sheet.table(["", "without", "with", "difference"], recorder.rows)
    start = recorder.find(", from fork to exit")
    sheet.slower.append(f"Start of a program that never listens (/bin/true): {start[1]} without, {start[2]} with, "
                        f"{start[3]}.")
    fork = recorder.find(", fork")
    if fork[3].startswith("+"):
        sheet.slower.append(f"Each fork of a server that has a listener: {fork[1]} without, {fork[2]} with, {fork[3]}.")
    memory = recorder.find("private memory of an idle server")
    sheet.slower.append(f"Private memory of an idle server: {memory[1]} without, {memory[2]} with, {memory[3]}.")
    sheet.headlines.append(f"It adds {start[3].lstrip('+')} to the start of /bin/true and {memory[3].lstrip('+')} of "
                           "private memory to a server.")


def workers(session: Session) -> list[list[str]]:
    """Of nginx: workers are forked, and share with their master what neither has written to."""
    server = known_servers()["nginx"]
    sizes = []
    for preload in ("", str(session.library)):
        with Running(session, server, preload) as running:
            running.await_answer()
            top = set(running.family.top())
            sizes.append(median(footprint.private_memory(_Pid(pid)) for pid in running.family.members()
                                if pid not in top))
    without, with_ = sizes
    return [["private memory of a forked worker of nginx", footprint.kib(without), footprint.kib(with_),
             f"{(with_ - without) / 1024:+.0f} KiB"]]


def symbols(session: Session) -> list[list[str]]:
    def said(*command: str) -> str:
        return subprocess.run([*command, session.library], check=True, stdout=subprocess.PIPE, text=True).stdout

    exported = [line.split()[-1] for line in said("nm", "-D", "--defined-only").splitlines()]
    needed = re.findall(r"NEEDED.*\[(.*)\]", said("readelf", "-d"))
    return [["functions of libc that it stands in for, symbols exported", "", str(len(exported)), ""],
            ["libraries that it brings along", "", ", ".join(needed), ""]]
