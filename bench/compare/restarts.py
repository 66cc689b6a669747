"""The restart itself, of one server under one load, in all ways that it knows.

A client opens a connection at every tick, whatever has become of those before (paced.c).
So what is counted is what a restart does to clients that do not wait for each other.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from statistics import median

import svg
import takeover
from cell import Cell, NotTried, Seen, Tools
from harness.log import Log
from harness.process import Process, environment_without_ours
from scenarios import Scenario
from session import Session, load_processor, on, real_time
from sheet import Sheet, time_of
from stage import run
from systems import System
from table import percentile
from ways import Group, groups, is_ours, look_around, request_of

goal_gap = 1e6  # nanoseconds
goal_take_over = 100e3
quiet_for = 1.0  # seconds, watched while nothing happens
warm_for = 0.4
afterwards = 2.2  # seconds after the last step: longer than bench-paced waits for an answer
seconds_to_start = 20.0
seconds_to_take_over = 20.0
_nothing = Scenario("", "", lambda _: None)


class Paced:
    """bench-paced, on the processor of the load."""

    def __init__(self, session: Session, port: int, interval: int, request: str) -> None:
        with on(load_processor):
            self._child = subprocess.Popen([session.program("paced"), str(port), str(interval), request],
                                           env=session.stage.without, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           text=True, bufsize=1)
        self._asking = threading.Lock()

    def ask(self, command: str) -> dict:
        with self._asking:
            self._child.stdin.write(command + "\n")
            self._child.stdin.flush()
            answer = self._child.stdout.readline()
        if not answer:
            raise NotTried("bench-paced has ended")
        return json.loads(answer)

    def close(self) -> None:
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()


@dataclass
class Measured:
    """Times in nanoseconds."""

    handover: float  # the longest without an answer where old and new meet
    gap: float  # the same of the whole restart
    worst: float
    p999: float
    lost: int
    quiet_gap: float  # the same while nothing is restarted
    quiet_worst: float
    start: float  # from the beginning to the first answer of the new one
    between: float  # the last answer of the old one and the first of the new; negative: both answered
    take_over: float | None  # as our library logs it


class Restart(Cell):
    """One restart: a cell of the failures' table in which nothing fails, looked at more closely."""

    def __init__(self, session: Session, group: Group, system: System, tools: Tools) -> None:
        super().__init__(system, _nothing, tools)
        self.session, self.group = session, group
        self.measured: Measured | None = None
        self.own_start = 0.0  # of the first process

    def start(self, *options: str) -> Process:
        environment = environment_without_ours()
        environment.update(CONTINUITY_DIR=str(self.place.directory / "rendezvous"),
                           CONTINUITY_PROBATION=f"{look_around * 1000:.0f}ms",
                           CONTINUITY_LOG_FILE=str(self.place.directory / "continuity.log"))
        loaded = f"LD_PRELOAD={self.tools.library}" if self.system.is_ours else "NOTHING=here"
        self.stamp = self.place.directory / f"{len(self.families)}.stamp"
        with on(None):
            return self.start_command([self.session.program("stamp"), str(self.stamp), "/usr/bin/env", loaded,
                                       *self.system.server.command, *options], environment, "")

    def await_new(self) -> bool:
        """Whether a new process answers, and when it did first."""
        deadline = time.monotonic() + seconds_to_take_over
        while not (firsts := self.of_new(self.paced.ask("who"))):
            if time.monotonic() >= deadline or self._is_over.is_set():
                return False
            self.pause(0.005)
        self.first_of_new = min(first for first, _ in firsts)
        return True

    def of_new(self, stats: dict) -> list[tuple[int, int]]:
        """First and last answer of each process that was not there before."""
        return [(first, last) for pid, (first, last, _) in stats["pids"].items() if int(pid) not in self.old]

    def try_it(self, seen: Seen) -> None:
        self.write_files()
        self.log = Log(self.place.directory / "continuity.log")
        self.paced = Paced(self.session, self.place.port, self.group.interval, request_of(self.system))
        try:
            self.measure_start()
            if self.system is not self.group.plain:
                self.pause(warm_for)
                [self.main] = self.families[0].top()
                self.old = set(self.families[0].members())
                quiet = self.watch(quiet_for)
                if lost_of(quiet):
                    raise NotTried("the machine is too busy: this load is too much before anything is restarted")
                self.measured = self.measure_restart(quiet)
            seen.at_the_end = "new"
        finally:
            self.paced.close()
            self.log.close()

    def measure_start(self) -> None:
        """How long the first one takes until it answers."""
        self.old = set()
        self.place.release_port()
        self.paced.ask("mark")
        first = self.start()
        self.await_new_or_end(first)
        self.own_start = self.first_of_new - int(self.stamp.read_text())

    def await_new_or_end(self, family: Process) -> None:
        if not self.await_new():
            raise NotTried(f"{self.system.title} never answered: {family.last_words()}")

    def watch(self, seconds: float) -> dict:
        self.paced.ask("mark")
        self.pause(seconds)
        return self.paced.ask("stats")

    def measure_restart(self, quiet: dict) -> Measured:
        self.paced.ask("mark")
        begun = time.monotonic_ns()
        starts = len(self.families)
        self.upgrade()
        if not self.await_new():
            raise NotTried(f"no new process answered: {self.families[-1].last_words()}")
        for operator in self._operators:
            operator.join()
        self.pause(afterwards)
        if len(self.families) > starts:
            begun = int(self.stamp.read_text())
        during = self.paced.ask("stats")
        first = self.first_of_new
        last = max((last for pid, (_, last, _) in during["pids"].items() if int(pid) in self.old), default=first)
        handover = self.paced.ask(f"silence {min(first, last)} {max(first, last)}")["silence"]
        found = self.log.find(r"took over .* in ([0-9.]+) ms$", 0)
        return Measured(
            handover=handover, gap=during["gap"], worst=during["worst"], p999=during["p999"],
            lost=lost_of(during),
            quiet_gap=quiet["gap"], quiet_worst=quiet["worst"], start=first - begun,
            between=first - last, take_over=float(found[1]) * 1e6 if found else None)


def lost_of(stats: dict) -> int:
    return sum(stats[name] for name in ("refused", "reset", "closed", "timeout", "other"))


def measure(session: Session, sheet: Sheet) -> None:
    built = session.stage.programs.parent
    tools = Tools(session.library, built / "continuity-load", built / "failures" / "hang.so")
    sheet.section("The restart itself")
    add_take_over(session, sheet)
    all_groups = groups(built)
    seen: dict[str, list[Measured]] = {}
    starts: dict[str, list[float]] = {}
    faults: list[tuple[str, str]] = []
    for turn in session.repeats(session.choose(1, 8), session.choose(60, 330)):
        for group in all_groups:
            ways = [*group.ways, *([group.plain] if group.plain else [])]
            for system in ways if turn % 2 == 0 else ways[::-1]:
                restart = Restart(session, group, system, tools)
                if fault := restart.run().fault:
                    faults.append((system.title, fault))
                    continue
                starts.setdefault(system.title, []).append(restart.own_start)
                if restart.measured:
                    seen.setdefault(system.title, []).append(restart.measured)
    sheet.say(
        f"One server under one load, restarted in all the ways it knows; {min(map(len, seen.values()))} times each, by "
        "turns. A client opens a connection at every tick, whatever has become of those before, so that nothing that "
        "waits keeps others from coming; it runs on a processor of its own, with real-time priority, and what it is "
        "late with itself is taken out. Medians, and the worst in brackets.",
        "- *hand-over*: the longest time without any answer of which a part is between the last answer of the old and "
        "the first of the new, or, where both answer, between the first of the new and the last of the old; it is at "
        "least a tick.\n"
        "- *no answer for*: the same from when the restart begins until 2 s after its last step: the old one, too, has "
        "to wait for a processor while a new program starts. *nothing restarted*: the same in the second before.\n"
        "- *slowest*, *p99.9*: of the answers.\n"
        "- *lost*: connections refused, reset, closed or not answered within 2 s, in all the runs.\n"
        "- *new answers after*: from the command or the signal until the new process answers; *more than its start*: "
        "what of it is not the program's own start-up, as it is when nobody is to be replaced.\n"
        "- *from old to new*: the time between the last answer of the old and the first of the new; or how long both "
        "answered.\n"
        "- *take-over*: from READY to RETIRED, by our log: in that time nobody accepts.")
    for fault in faults:
        sheet.fault(*fault)
    picture = []
    for group in all_groups:
        if any(title not in seen for title in (system.title for system in group.ways)) or \
                group.plain and group.plain.title not in starts:
            continue  # there is nothing to compare
        add_group(sheet, group, seen, starts)
        picture.append((group.title, [
            svg.Bar(system.title, median(one.handover for one in seen[system.title]) / 1e6,
                    bar_text(seen[system.title]), svg.ours if is_ours(system) else svg.peer)
            for system in group.ways]))
    sheet.picture("numbers-restart.svg", svg.bars(
        "The longest time without an answer, where the old and the new meet", picture, 0.1, "ms"),
        "the longest time without an answer at the hand-over, by server and way")


def bar_text(runs: list[Measured]) -> str:
    lost = sum(one.lost for one in runs)
    return time_of(median(one.handover for one in runs)) + (f", {lost} lost" if lost else "")


def add_group(sheet: Sheet, group: Group, seen: dict[str, list[Measured]], starts: dict[str, list[float]]) -> None:
    sheet.say(f"### {group.title[0].upper()}{group.title[1:]}: a connection each {group.interval / 1000:g} ms")
    rows = []
    for system in group.ways:
        runs = seen[system.title]
        own = median(starts[(group.plain or system).title])
        take_overs = [one.take_over for one in runs if one.take_over is not None]
        rows.append([
            system.title, *(spread([getattr(one, field) for one in runs])
                            for field in ("handover", "gap", "quiet_gap", "worst", "p999")),
            str(sum(one.lost for one in runs)), time_of(median(one.start for one in runs)),
            time_of(median(one.start for one in runs) - own),
            from_old_to_new(median(one.between for one in runs)),
            spread(take_overs) if take_overs else "-"])
    print(group.title, flush=True)
    sheet.table(["", "hand-over", "no answer for", "nothing restarted", "slowest", "p99.9", "lost", "new answers after",
                 "more than its start", "from old to new", "take-over"], rows)
    judge(sheet, group, seen)


def from_old_to_new(between: float) -> str:
    return time_of(between) if between >= 0 else f"both for {time_of(-between)}"


def spread(values: list[float]) -> str:
    return time_of(median(values)) + (f" ({time_of(max(values))})" if len(values) > 1 else "")


def judge(sheet: Sheet, group: Group, seen: dict[str, list[Measured]]) -> None:
    times = {system.title: median(one.handover for one in seen[system.title]) for system in group.ways}
    our_title = next(system.title for system in group.ways if is_ours(system))
    ours, runs = times.pop(our_title), seen[our_title]
    least = min(one.handover for one in runs)
    limit = goal_gap + group.interval * 1e3
    keeps = ours < limit or ("unclear" if least < limit else False)
    sheet.goal(f"{group.title}: no answer at the hand-over", f"< {time_of(limit)}", time_of(ours), keeps)
    best = min(times, key=times.get)
    shortest = ours <= times[best] or ("unclear" if least <= times[best] else False)
    sheet.goal(f"{group.title}: shortest of all", f"≤ {time_of(times[best])} ({best})", time_of(ours), shortest)
    if shortest is not True:
        sheet.slower.append(f"{our_title}: no answer for {time_of(ours)} at the hand-over; {best}: "
                            f"{time_of(times[best])}.")
    lost = sum(one.lost for one in runs)
    sheet.goal(f"{group.title}: lost", "0", str(lost), lost == 0)
    if group.title in ("nginx", "haproxy"):
        others = ", ".join(f"{title.partition(', ')[2] or title} {bar_text(seen[title])}" for title in times)
        sheet.headlines.append(f"{group.title} restarted under load, the longest time without an answer where old and "
                               f"new meet: Continuity {bar_text(runs)}; {others}.")


@dataclass
class TakeOvers:
    """And the kernel's floor, by turns with them."""

    times: list[float]  # from READY to RETIRED
    words: list[float]
    listeners: list[float]


def add_take_over(session: Session, sheet: Sheet) -> None:
    ordinary = take_over_again_and_again(session)
    rows = rows_of(ordinary, "")
    with real_time() as may:
        if may:
            rows += rows_of(take_over_again_and_again(session), ", with real-time priority")
    sheet.say(f"From READY to RETIRED nobody accepts. {len(ordinary.times)} restarts of a server with one listener, "
              "nothing else to do, by turns with the kernel's floor (`bench-passing`): two processes, of which one "
              "says a word and the other, asleep until then, answers; and the same with a listener sent along. With "
              "real-time priority (SCHED_FIFO) nothing else that the machine does is in it.")
    sheet.table(["", "p50", "p90", "p99", "best"], rows)
    p50 = percentile(ordinary.times, 50)
    sheet.goal("READY to RETIRED, one listener", f"< {time_of(goal_take_over)}", time_of(p50), p50 < goal_take_over)
    sheet.headlines.append(f"Nobody accepts for {time_of(p50)} (median of {len(ordinary.times)} restarts); two "
                           f"processes that only hand a listener over need {time_of(median(ordinary.listeners))} on "
                           "the same machine.")


def take_over_again_and_again(session: Session) -> TakeOvers:
    restarts, rounds = session.choose((10, 3), (40, 5))
    found = TakeOvers([], [], [])
    for _ in range(rounds):
        with takeover.Chain(session.stage, 1) as chain:
            found.times += [chain.restart() * 1000 for _ in range(restarts)]
        said = run([session.program("passing"), str(10 * restarts), "1"], session.stage.without)
        words, listeners = map(float, said.split())
        found.words.append(words)
        found.listeners.append(listeners)
    return found


def rows_of(found: TakeOvers, how: str) -> list[list[str]]:
    return [[f"READY to RETIRED{how}", *(time_of(percentile(found.times, share)) for share in (50, 90, 99)),
             time_of(min(found.times))],
            [f"a word and its answer{how}", time_of(median(found.words)), "", "", time_of(min(found.words))],
            [f"a listener sent and acknowledged{how}", time_of(median(found.listeners)), "", "",
             time_of(min(found.listeners))]]
