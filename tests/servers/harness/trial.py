"""The experiment: a server is restarted under load by running it again.

At each restart requests are in flight and one connection is kept alive. They
outlast the take-over and the probation; one half-sent request of the first
generation outlasts three restarts, so that two predecessors drain at a time.
Everything that a client could notice is a failure, and so is a generation of
which a process stays when its last connection has ended. Without the library the same
experiment has to fail: that is its negative control.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .in_flight import HalfSent, KeptAlive, NotBegun
from .load import Load, LoadFault, answers_within
from .log import Log
from .process import Process, environment_without_ours
from .server import Missing, Place, Server

probation = 0.2  # CONTINUITY_PROBATION of every run
straggler_restarts = 3
half_sent_requests = 2


@dataclass
class Outcome:
    server: Server
    version: str = "-"
    restarts: int = 0  # those that succeeded
    requests: int = 0
    failed: int = 0  # refused, reset, closed, cut or hung
    stale: int = 0  # begun after a take-over, served by an older process
    in_flight: int = 0
    in_flight_whole: int = 0
    take_overs: list[float] = field(default_factory=list)  # ms, as the successor logs them
    left_after: list[float] = field(default_factory=list)  # ms from the last connection's end to the exit
    exits: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    fault: str = ""  # why the trial says nothing about the library
    kept: Path | None = None  # logs of a run that failed

    @property
    def lost(self) -> int:
        return self.failed + self.stale + self.in_flight - self.in_flight_whole

    @property
    def nothing_lost(self) -> bool:
        return not self.failures and not self.fault

    @property
    def something_lost(self) -> bool:
        return bool(self.failures) and not self.fault


class GaveUp(Exception):
    """A failure after which the trial cannot go on."""


class NotTried(Exception):
    """The server does not even serve before the first restart."""


class Generation(Process):
    """One start of the server, and what is in flight with it."""

    def __init__(self, number: int, *arguments) -> None:
        super().__init__(*arguments)
        self.number = number
        self.held: list[tuple[int, object]] = []  # requests, each with the restart after which it ends
        self.reported = False


class Trial:
    def __init__(self, server: Server, library: Path | None, client: Path, restarts: int, clients: int,
                 keep: bool = True) -> None:
        self.server, self.library, self.client = server, library, client
        self.restarts, self.clients = restarts, clients
        self.keep = keep and library is not None  # the directory with the logs, if something goes wrong
        self.outcome = Outcome(server)
        self.generations: list[Generation] = []
        self.left_behind: list[tuple[int, int]] = []  # after each restart: descriptors, sockets at the rendezvous
        # The control has made its point once its successor cannot take over.
        self.seconds_to_take_over = 30.0 if library else 3.0
        self.seconds_to_leave = 20.0 if library else 1.0
        self.seconds_to_serve = 10.0
        self.probation = probation
        self.straggler_restarts = straggler_restarts
        self.client_options: list[str] = []

    def run(self) -> Outcome:
        try:
            self.outcome.version = self.server.installed_version()
        except Missing as missing:
            self.outcome.fault = str(missing)
            return self.outcome
        self.place = Place(self.server)
        self.rendezvous = self.place.directory / "rendezvous"
        self.rendezvous.mkdir()
        self.rendezvous.chmod(0o711)  # for servers that leave root behind: each user has a directory below
        self.log = Log(self.place.directory / "continuity.log")
        self.load: Load | None = None
        try:
            self.try_it()
        except GaveUp as problem:
            self.fail(str(problem))
        except (NotTried, NotBegun, LoadFault, OSError, subprocess.SubprocessError) as problem:
            self.outcome.fault = f"{type(problem).__name__}: {problem}"
        finally:
            self.clean_up()
        return self.outcome

    def fail(self, what: str) -> None:
        self.outcome.failures.append(what)

    def try_it(self) -> None:
        for command in self.server.prepare:
            subprocess.run(self.place.fill_all(command), cwd=self.place.directory, check=True, timeout=120,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first = self.start(1)
        arguments = [*self.place.fill_all(self.server.client_arguments()), *self.client_options]
        if not answers_within(self.client, arguments, first, self.server.seconds_to_start):
            raise NotTried(f"the first generation never answered: {first.last_words()}")
        self.place.release_port()
        self.load = Load(self.client, arguments, self.clients, self.place.directory / "load.errors")
        self.load.ask(f"watch {first.pid}")
        if not self.serves(first):
            raise NotTried("the first generation does not serve the clients")
        first.held.append((min(self.straggler_restarts, self.restarts), HalfSent(self.load, "straggler", first.pid)))
        try:
            for number in range(1, self.restarts + 1):
                self.restart(number)
            self.expect_nothing_left_behind()
        finally:
            self.read_counts(self.load.finish())

    def start(self, number: int) -> Generation:
        environment = environment_without_ours()
        environment.update({name: self.place.fill(value, number) for name, value in self.server.environment.items()})
        if self.library:
            environment["CONTINUITY_DIR"] = str(self.rendezvous)
            environment["CONTINUITY_LOG_FILE"] = str(self.log.path)
            environment["CONTINUITY_PROBATION"] = f"{self.probation * 1000:.0f}ms"
        command = self.place.fill_all(self.server.command, number)
        generation = Generation(number, command, environment, self.library, self.place.directory,
                                self.place.directory / f"generation-{number}.output")
        self.generations.append(generation)
        return generation

    def serves(self, generation: Generation) -> bool:
        """New connections reach that process: as many as there are clients."""
        return self.load.await_served_by({generation.pid}, self.clients, self.seconds_to_serve)

    def restart(self, number: int) -> None:
        old = self.generations[-1]
        try:
            held = [HalfSent(self.load, f"half-{number}-{i}", old.pid) for i in range(half_sent_requests)]
            if self.server.keeps_alive:
                held.append(KeptAlive(self.load, f"kept-{number}", old.pid))
            # Last, because one at work may occupy the only thread that there is.
            held += [kind.begin(self.place, number) for kind in self.server.in_flight]
        except (NotBegun, OSError) as problem:
            raise GaveUp(f"before restart {number}: {problem}") from problem
        old.held += [(number, request) for request in held]

        said = self.log.length()
        new = self.start(number + 1)
        self.load.ask(f"watch {new.pid}")
        try:
            self.await_take_over(new, said)
            self.outcome.restarts += 1
            self.load.ask(f"only {new.pid}")
            if old.ended(self.probation + 0.1):
                self.fail(f"generation {old.number} left ({old.how_it_ended()}) with requests in flight")
            elif self.server.reload_signal and not old.tell(self.server.reload_signal, self.server.reload_says, 10):
                self.fail(f"generation {old.number} was told to reload and did not")
        finally:
            self.finish_due(number)
        # Not earlier: a single thread at work in the predecessor may have kept all clients waiting.
        if not self.serves(new):
            raise GaveUp(f"generation {new.number} took over, but new connections do not reach it")
        self.expect_leave(number, new)
        if self.library:
            self.left_behind.append((new.library_descriptors(), self.announced()))

    def await_take_over(self, new: Generation, said: int) -> None:
        """`said` is how long the log was when it started."""
        if self.library:
            # Any of its processes may say so; the clients' side shows which generation serves.
            line = r"^continuity\[\d+\]: took over .* from pid \d+ in ([0-9.]+) ms"
            found = self.log.await_line(line, said, new, self.seconds_to_take_over)
            if found:
                self.outcome.take_overs.append(float(found[1]))
                return
        else:
            deadline = time.monotonic() + self.seconds_to_take_over
            while not new.ended(0.02) and time.monotonic() < deadline:
                if self.load.served_by({new.pid}):
                    return
        if new.ended():
            raise GaveUp(f"start {new.number} ended ({new.how_it_ended()}): {new.last_words()}")
        raise GaveUp(f"start {new.number} did not take over in {self.seconds_to_take_over:.0f} s: {new.last_words()}")

    def finish_due(self, number: int) -> None:
        """Finishes what was to last until this restart, or everything when the trial ends early.

        Last begun, first finished: what occupies the only thread of a server has to end before the others can.
        """
        early = self.outcome.restarts < number
        for generation in self.generations:
            for due, request in reversed(generation.held.copy()):
                if due > number and not early:
                    continue
                generation.held.remove((due, request))
                result = request.finish()
                self.outcome.in_flight += 1
                self.outcome.in_flight_whole += result == "ok"
                if result != "ok":
                    kind = type(request).__qualname__.removesuffix(".Begun")
                    self.fail(f"restart {number}: {kind} request with generation {generation.number}: {result}")

    def expect_leave(self, number: int, newest: Generation) -> None:
        done = time.monotonic()
        for generation in self.generations[:-1]:
            if generation.held or generation.reported:
                continue
            generation.reported = True
            if generation.ended(self.seconds_to_leave):
                self.outcome.left_after.append((time.monotonic() - done) * 1000)
                self.outcome.exits[generation.how_it_ended()] += 1
            else:
                patience = f"{self.seconds_to_leave:.0f} s"
                self.fail(f"generation {generation.number} stays {patience} after its last connection")
                generation.terminate()  # as an operator would; what is lost by it is counted
                if not generation.ended(5) or not self.load.await_served_by({newest.pid}, self.clients, 2):
                    self.fail(f"generation {generation.number} was terminated: now the newest cannot be reached")
        if self.server.pid_file:
            path = Path(self.place.fill(self.server.pid_file, newest.number))
            named = path.read_text().strip() if path.exists() else "nobody: it is gone"
            if named not in map(str, newest.members()):
                self.fail(f"restart {number}: the pid file names {named}, not one of {newest.members()}")

    def announced(self) -> int:
        return sum(path.is_socket() for path in self.rendezvous.rglob("*"))

    def expect_nothing_left_behind(self) -> None:
        """However many generations there were before, one looks like the other when its predecessors have left."""
        settled = self.left_behind[self.straggler_restarts:]  # one that drains still has its own
        if not settled:
            return
        descriptors, sockets = (max(values) for values in zip(*settled[:2]))
        if settled[-1][0] > descriptors:
            self.fail(f"descriptors of the library after each restart: {[one[0] for one in self.left_behind]}")
        if settled[-1][1] > sockets:
            self.fail(f"sockets at the rendezvous after each restart: {[one[1] for one in self.left_behind]}")

    def read_counts(self, counts: dict) -> None:
        self.outcome.requests, self.outcome.failed = counts["requests"], counts["failed"]
        self.outcome.stale = counts["stale"]
        examples = counts["first_failures"][:3]
        for name in ("refused", "reset", "closed", "short", "timeout", "other"):
            if counts[name]:
                self.fail(f"{counts[name]} requests {name}: {examples}")
        if counts["stale"]:
            self.fail(f"{counts['stale']} new connections were served by an older process: {examples}")
        if counts["unknown_owner"]:
            self.fail(f"{counts['unknown_owner']} connections whose process was not found: {examples}")
        if counts["client_error"]:
            self.fail(f"{counts['client_error']} errors of the client itself: {examples}")

    def clean_up(self) -> None:
        if self.load:
            self.load.close()
        for generation in self.generations:
            generation.destroy()
        self.log.close()
        if self.outcome.nothing_lost or not self.keep:
            self.place.remove()
        else:
            self.outcome.kept = self.place.directory
