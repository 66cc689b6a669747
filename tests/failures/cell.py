"""One cell of the table, once: a server under load, an upgrade that fails, and what clients saw of it."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.load import Load, LoadFault, answers_within
from harness.process import Process, environment_without_ours, signal_all
from harness.server import Place

from systems import System

clients = 4
pause_between = "20ms"
request_patience = "2s"
window = 8.0  # watched after what went wrong
seconds_to_start = 20.0
seconds_to_take_over = 10.0
alive_for = 0.5  # after the first answer of the new one
stopped_for = 0.05
between_two = 0.02
last_look = 1.0  # who serves at the end of the window


class NotTried(Exception):
    """What was to fail never came so far."""


@dataclass
class Seen:
    """What clients saw."""

    refused: int = 0
    reset: int = 0  # or ended before the answer did
    timed_out: int = 0
    with_the_dead: int = 0  # accepted by a process that was killed: none of the above
    silence: float = 0.0  # seconds in which no new connection was answered
    at_the_end: str = "-"  # who serves
    fault: str = ""
    examples: list[str] = field(default_factory=list)
    kept: Path | None = None

    @property
    def lost(self) -> int:
        return self.refused + self.reset + self.timed_out

    @property
    def is_right(self) -> bool:
        return not self.fault and self.lost == 0 and self.at_the_end != "nobody"


@dataclass(frozen=True)
class Tools:
    library: Path
    client: Path
    hang: Path


class Cell:
    def __init__(self, system: System, scenario, tools: Tools) -> None:
        self.system, self.scenario, self.tools = system, scenario, tools
        self.families: list[Process] = []
        self.old: set[int] = set()
        self.new: dict[int, Process] = {}  # by pid, the start that each belongs to
        self.main = 0  # the process that an operator knows
        self._counting = threading.Lock()
        self._numbers = itertools.count(1)  # of starts
        self._is_over = threading.Event()
        self._operators: list[threading.Thread] = []

    def run(self) -> Seen:
        seen = Seen()
        self.place = Place(self.system.server)
        self.second = self.place.port2
        self.load: Load | None = None
        (self.place.directory / "rendezvous").mkdir()
        (self.place.directory / "rendezvous").chmod(0o711)
        try:
            self.try_it(seen)
        except (NotTried, LoadFault, OSError) as problem:
            seen.fault = f"{type(problem).__name__}: {problem}"
        finally:
            self.clean_up()
        if seen.is_right or not self.system.is_ours:
            self.place.remove()
        else:
            seen.kept = self.place.directory
        return seen

    def try_it(self, seen: Seen) -> None:
        self.write_files()
        first = self.start()
        arguments = [*self.place.fill_all(self.system.server.client_arguments()), "--pause", pause_between,
                     "--timeout", request_patience]
        if not answers_within(self.tools.client, arguments, first, seconds_to_start):
            raise NotTried(f"the first never answered: {first.last_words()}")
        self.place.release_port()
        [self.main] = first.top()
        self.old = {first.pid, *first.members()}
        self.load = Load(self.tools.client, arguments, clients, self.place.directory / "load.errors")
        self.load.ask(f"watch {' '.join(map(str, self.old))}")
        if not self.load.await_served_by(self.old, clients, seconds_to_start):
            raise NotTried("the first does not serve the clients")
        if self.load.ask("stats")["failed"]:
            raise NotTried("the first fails its clients before any upgrade")

        self.scenario.bring_about(self)
        self.pause(window - last_look)
        if not self.scenario.kills:  # else the old ones may have started some anew
            self.look_for_new()
        if self.scenario.hangs and not any(family.members() for family in self.new.values()):
            raise NotTried("nothing hangs")
        self.load.ask("mark")
        self.pause(last_look)
        last = self.load.ask("mark")
        seen.at_the_end = self.who_serves(last["by_pid"])
        seen.silence = self.load.ask("stats")["silence_ms"] / 1000
        self.read_counts(seen, self.load.finish())

    # ---- What scenarios do -----------------------------------------------------------

    def take_second_address(self) -> None:
        """The next version is to serve an address which somebody else has."""
        self.stranger = socket.socket()
        self.stranger.bind(("127.0.0.1", 0))
        self.stranger.listen()
        self.second = self.stranger.getsockname()[1]
        self.write_files()

    def make_starts_hang(self) -> None:
        (self.place.directory / "hang").touch()

    def upgrade(self) -> None:
        operator = threading.Thread(target=self.system.upgrade, args=(self,))
        self._operators.append(operator)
        operator.start()

    def await_take_over(self) -> None:
        deadline = time.monotonic() + seconds_to_take_over
        while not self.load.served_by(self.new.keys()):
            if time.monotonic() >= deadline:
                raise NotTried(f"the new one did not take over: {self.families[-1].last_words()}")
            self.pause(0.02)
            self.look_for_new()

    def kill_new(self, number: int) -> None:
        """Stopped for a moment before, so that what it has accepted can be seen from outside."""
        self.look_for_new()
        dying = self.new.keys() - {family.pid for family in self.families}
        signal_all(dying, signal.SIGSTOP)
        self.pause(stopped_for)
        signal_all(dying, number)
        signal_all(dying, signal.SIGCONT)

    def look_for_new(self) -> None:
        for family in self.families.copy():
            self.count_as_new(set(family.members()) - self.old - self.new.keys(), family)

    # ---- What upgrades do --------------------------------------------------------------

    def start(self, *options: str) -> Process:
        environment = environment_without_ours()
        loaded = []
        if self.scenario.hangs:
            environment["FAILURES_HANG"] = str(self.place.directory / "hang")
            loaded.append(str(self.tools.hang))  # before the library, which must not see the wait
        if self.system.is_ours:
            environment["CONTINUITY_DIR"] = str(self.place.directory / "rendezvous")
            loaded.append(str(self.tools.library))
        family = self.start_command([*self.system.server.command, *options], environment, ":".join(loaded))
        if self.load:
            self.count_as_new({family.pid}, family)
        return family

    def start_command(self, command: list[str], environment: dict[str, str], preload: str) -> Process:
        output = self.place.directory / f"{next(self._numbers)}.output"
        family = Process([self.fill(word) for word in command], environment, preload, self.place.directory, output)
        self.families.append(family)
        return family

    def tell(self, pid: int, number: int) -> None:
        signal_all([pid], number)

    def pause(self, seconds: float) -> None:
        """Ends early with the cell."""
        self._is_over.wait(seconds)

    # ----------------------------------------------------------------------------------

    def fill(self, text: str) -> str:
        return self.place.fill(text).replace("@SECOND@", str(self.second))

    def write_files(self) -> None:
        for name, text in self.system.server.files.items():
            (self.place.directory / name).write_text(self.fill(text))

    def count_as_new(self, pids: set[int], family: Process) -> None:
        """The operators start processes while we look for them."""
        if pids:
            with self._counting:
                self.new = {**self.new, **dict.fromkeys(pids, family)}
            self.load.ask(f"watch {' '.join(map(str, pids))}")

    def who_serves(self, by_pid: dict[str, int]) -> str:
        starts = [self.new.get(int(pid)) for pid in by_pid]
        new = set(filter(None, starts))
        named = ["old"] * (None in starts) + ["new"] * (len(new) == 1) + [f"{len(new)} new ones"] * (len(new) > 1)
        return " and ".join(named) or "nobody"

    def read_counts(self, seen: Seen, counts: dict) -> None:
        def outcome(name: str) -> int:
            return counts[name] - sum(failed.get(name, 0) for failed in of_the_dead)

        of_the_dead = []
        if self.scenario.kills:
            of_the_dead = [failed for pid, failed in counts["failed_by_pid"].items() if int(pid) in self.new]
        seen.with_the_dead = sum(sum(failed.values()) for failed in of_the_dead)
        seen.refused, seen.timed_out = outcome("refused"), outcome("timeout")
        seen.reset = sum(map(outcome, ("reset", "closed", "short", "other")))
        seen.examples = counts["first_failures"]
        if counts["client_error"]:
            raise NotTried(f"{counts['client_error']} errors of the client itself: {counts['first_failures'][:3]}")

    def clean_up(self) -> None:
        self._is_over.set()
        for operator in self._operators:
            operator.join()
        if self.load:
            self.load.close()
        for family in self.families:
            family.destroy()
        if hasattr(self, "stranger"):
            self.stranger.close()

