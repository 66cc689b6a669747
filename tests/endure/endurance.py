"""Many restarts in a row, and nothing left behind: the trial of scripts/servers, with counts.

`Endurance` restarts the server again and again. `Killing` kills most of its successors, at a
moment of the seed's choosing from the exec to some time after the take-over: their
predecessor has to go on, or to come back, and serves through all of it.
"""

from __future__ import annotations

import random
import re
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness.in_flight import HalfSent
from harness.process import signal_all
from harness.server import Server
from harness.trial import Generation, GaveUp, Trial

from counts import Counts, Where, count

base = 2  # the restart after which what is left is what must be left after the last one
pause = "20ms"  # of each client between two requests
between_counts = 10
between_progress = 100
# What the same server has in memory differs by this much without any leak, as it had more or
# fewer clients at a time; for each process.
memory_bound_each = 512  # KiB
seconds_to_settle = 10.0
default_probation = 5.0
seconds_after_take_over = 2.0
default_good_every = 40
oldest = 120.0  # seconds: small servers of ours end by themselves after four minutes
stopped_for = 0.05
_ended_by_death = ("reset", "closed", "short")
_failures = (*_ended_by_death, "refused", "timeout", "other", "client_error")
_not_the_servers = re.compile(r"generation-\d+\.output|load\.errors")


@dataclass
class Killed:
    """What became of the successors that were killed."""

    before: int = 0  # they had taken over
    after: int = 0
    with_the_dead: int = 0  # requests of which the killed process was seen to have the connection
    at_the_kill: int = 0  # and those that ended when it was killed, before anybody had looked whose they were
    silences: list[float] = field(default_factory=list)  # ms without an answer, at a kill

    @property
    def all(self) -> int:
        return self.before + self.after


class Endurance(Trial):
    helpers_each = 0  # threads that a process may have for a while
    told_to_end = threading.Event()  # all runs

    def __init__(self, server: Server, library: Path | None, client: Path, restarts: int, clients: int) -> None:
        super().__init__(server, library, client, restarts, clients)
        self.straggler_restarts = 1  # or there were two generations at the first count
        self.client_options = ["--pause", pause]
        self.counted: dict[int, Counts] = {}  # by the restart after which it was
        self.removed_next: set[Path] = set()  # what a killed process has left at the rendezvous

    def start(self, number: int) -> Generation:
        if self.told_to_end.is_set():
            raise GaveUp(f"told to end before start {number}")
        return super().start(number)

    def restart(self, number: int) -> None:
        super().restart(number)
        self.forget_ended()
        self.count_after(number)
        self.tell_progress(number)

    def count_after(self, number: int) -> None:
        if number == base or number == self.restarts or (number > base and number % between_counts == 0):
            self.counted[number] = self.settled(self.counted.get(base))

    def settled(self, wanted: Counts | None) -> Counts:
        """Waits, for as long as it may take: what is left must be left for good."""
        deadline = time.monotonic() + seconds_to_settle
        previous, now = None, self.count()
        while time.monotonic() < deadline:
            if not self.grown(wanted or previous or Counts(), now):
                break
            previous, now = now, self.count()
        return now

    def grown(self, before: Counts, after: Counts) -> list[str]:
        processes = max(before.processes, 1)
        return before.differences(after, memory_bound_each * processes, self.helpers_each * processes)

    def count(self) -> Counts:
        where = Where(self.rendezvous, self.place.directory, self.log.path, _not_the_servers)
        return count(self.generations, where, self.removed_next)

    def expect_nothing_left_behind(self) -> None:
        self.expect_equal(self.counted)

    def expect_equal(self, counted: dict[int, Counts]) -> None:
        first = next(iter(counted), 0)
        for number, counts in counted.items():
            for difference in self.grown(counted[first], counts):
                self.fail(f"after restart {first} and after restart {number}: {difference}")

    def tell_progress(self, number: int) -> None:
        if number % between_progress == 0:
            print(f"{self.server.title}: {number} of {self.restarts}, {len(self.outcome.failures)} failures",
                  file=sys.stderr, flush=True)

    def forget_ended(self) -> None:
        """A thousand of them would be more descriptors than one may have."""
        for generation in self.generations[:-1]:
            if generation.reported and generation.ended():
                self.generations.remove(generation)
                generation.destroy()


class StoppedAndStarted(Endurance):
    """What a restart is without the library."""

    def __init__(self, server: Server, client: Path, restarts: int, clients: int) -> None:
        super().__init__(server, None, client, restarts, clients)

    def restart(self, number: int) -> None:
        old = self.generations[-1]
        old.terminate()
        if not old.ended(self.seconds_to_serve):
            raise GaveUp(f"generation {old.number} does not end when it is told to")
        old.reported = True
        self.finish_due(number)
        new = self.start(number + 1)
        self.load.ask(f"watch {new.pid}")
        if not self.serves(new):
            raise GaveUp(f"generation {new.number} does not serve: {new.last_words()}")
        self.outcome.restarts += 1
        self.forget_ended()


class Killing(Endurance):
    # Who waited for nothing but its end when it was given everything back has a helper until it waits again.
    helpers_each = 1

    def __init__(self, server: Server, library: Path, client: Path, restarts: int, clients: int, seed: int,
                 good_every: int) -> None:
        super().__init__(server, library, client, restarts, clients)
        self.seed, self.good_every = seed, good_every
        self.probation = default_probation
        self.killed = Killed()
        self.dead: set[int] = set()  # roots of those killed
        self.succeeded: set[int] = set()  # restarts
        self.succeeded_at = 0.0
        self.starts: list[float] = []  # seconds from the exec to the take-over
        self.noted: Counter = Counter()  # of all that failed, since the last mark

    def restart(self, number: int) -> None:
        if number in (1, self.restarts) or number % self.good_every == 0 or self.is_old():
            self.succeeded.add(number)
            self.removed_next = set()
            super().restart(number)
            self.succeeded_at = time.monotonic()
            self.note_losses()
            return
        try:
            self.kill_successor(number)
        finally:
            self.finish_due(number)
        self.count_after(number)
        self.tell_progress(number)

    def is_old(self) -> bool:
        return not self.server.packages and time.monotonic() - self.succeeded_at > oldest

    def count_after(self, number: int) -> None:
        """A killed process has had no time to tidy up: the next one does, and the two counts differ for good."""
        if number in self.succeeded:
            alike = [one for one in self.counted if one in self.succeeded]
            self.counted[number] = self.settled(self.counted[alike[0]] if alike else None)
        else:
            super().count_after(number)

    def expect_nothing_left_behind(self) -> None:
        for has_succeeded in (False, True):
            self.expect_equal({number: counts for number, counts in self.counted.items()
                               if (number in self.succeeded) is has_succeeded})

    def kill_successor(self, number: int) -> None:
        chosen = random.Random(f"{self.seed} {number}")
        old = self.generations[-1]
        self.note_losses()
        old.held.append((number, HalfSent(self.load, f"half-{number}", old.pid)))
        said = self.log.length()
        before = set(self.rendezvous.rglob("*"))
        new = self.start(number + 1)
        self.dead.discard(new.pid)  # a number may come again
        self.load.ask(f"watch {new.pid}")
        command = self.await_moment(chosen, new, said, takes_over=number == base)
        is_seen = chosen.random() < 0.5
        had_ended = new.ended()
        if is_seen:
            signal_all(command, signal.SIGSTOP)
            signal_all(new.members(), signal.SIGSTOP)
            time.sleep(stopped_for)
        signal_all(command, signal.SIGKILL)
        new.destroy()
        self.generations.remove(new)
        self.dead.add(new.pid)
        self.removed_next |= set(self.rendezvous.rglob("*")) - before
        if had_ended:
            raise GaveUp(f"start {number + 1} ended before it was killed ({new.how_it_ended()}): {new.last_words()}")
        if not self.serves(old):
            raise GaveUp(f"restart {number}: the successor was killed, and the old one does not serve")
        if self.log.find(r"^continuity\[\d+\]: (took over .* from pid|.* after it took over; serving again)", said):
            self.killed.after += 1
        else:
            self.killed.before += 1
        self.note_losses(of_a_kill=True, unseen=not is_seen)

    def await_moment(self, chosen: random.Random, new: Generation, said: int, *, takes_over: bool) -> list[int]:
        """Half of them before, or about when, they take over, half of them later; or this one later.
        The command's process."""
        while not (command := new.top()):
            if new.ended(0.001):
                return []
        begun = time.monotonic()
        if chosen.random() < 0.5 and not takes_over:
            time.sleep(chosen.uniform(0, 1.2 * statistics.median(self.starts[-20:] or [0.1])))
        else:
            self.await_take_over(new, said)
            self.starts.append(time.monotonic() - begun)
            time.sleep(chosen.uniform(0, seconds_after_take_over))
        return command

    def note_losses(self, of_a_kill: bool = False, unseen: bool = False) -> None:
        """Since the last time."""
        counts = self.load.ask("mark")
        self.noted.update({kind: counts[kind] for kind in _failures})
        by_the_dead = [failed for pid, failed in counts["failed_by_pid"].items() if int(pid) in self.dead]
        self.killed.with_the_dead += sum(sum(failed.values()) for failed in by_the_dead)
        if of_a_kill:
            self.killed.silences.append(counts["silence_ms"])
        failed_by_somebody = list(counts["failed_by_pid"].values())
        for kind in set(_failures) - set(_ended_by_death):
            self.note_lost(kind, counts[kind], counts)
        for kind in _ended_by_death:
            lost = counts[kind] - sum(failed.get(kind, 0) for failed in by_the_dead)
            if unseen:
                not_known = counts[kind] - sum(failed.get(kind, 0) for failed in failed_by_somebody)
                at_the_kill = min(not_known, self.clients)
                self.killed.at_the_kill += at_the_kill
                lost -= at_the_kill
            self.note_lost(kind, lost, counts)
        for kind in ("stale", "unknown_owner"):
            if counts[kind]:
                self.fail(f"{counts[kind]} requests {kind}: {counts['first_failures'][:3]}")

    def note_lost(self, kind: str, lost: int, counts: dict) -> None:
        if lost:
            self.fail(f"{lost} requests {kind}: {counts['first_failures'][:3]}")
            self.outcome.failed += lost

    def read_counts(self, counts: dict) -> None:
        self.outcome.requests = counts["requests"]
        for kind, noted in self.noted.items():
            self.note_lost(kind, counts[kind] - noted, counts)  # since the last restart, which was a good one
