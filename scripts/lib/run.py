"""A run: a server, the clients that keep it busy, and restart after restart.

A restart with Continuity is the server's own command, run again: the library's log says
when the new process took over, the old one must then leave by itself. Without it a restart
is what it has always been: end the server, start it again.
"""

import os
import re
import shlex
import signal
import time

from load import Load, describe_losses
from processes import Log, Process, Server, readable
from screen import Screen

library_name = "libcontinuity.so"
load_program = "continuity-load"  # where the build puts it
default_probation = "300ms"
start_patience = 60.0  # how long a server may take until it answers
leave_patience = 60.0  # how long the old one may take until it has left
redraw_interval = 0.1
took_over = re.compile(r"continuity\[(\d+)\]: took over .* from pid (\d+)(?:, which has ended,)? in ([0-9.]+) ms")
columns = "{:>10}  {:>7}  {:>11}  {:>9}  {:>7}  {}"


class Failure(Exception):
    """The run cannot go on; the text says why."""


class Run:
    """One server, its clients, and as many restarts as asked for."""

    def __init__(self, options, built, directory):
        self.options = options
        self.screen = Screen()
        self.output = open(directory / "output", "ab")
        self.log = Log(str(directory / "continuity.log"))
        self.environment = dict(os.environ)
        if not options.without:
            self.prepare_library(built / library_name, directory)
        self.load_program = str(built / load_program)
        self.load = None
        self.server = None   # the process started last
        self.current = None  # the one that serves, as far as we know
        self.stats = {"requests": 0, "failed": 0}
        self.row = ("",) * 4
        self.times = []  # of the take-overs, or without us: off the air

    def all_restarts(self):
        """Returns the exit status."""
        self.start()
        restart = self.restart_without if self.options.without else self.restart
        try:
            for generation in range(2, self.options.restarts + 2):
                restart(generation)
        except Failure:
            self.screen.keep()
            self.finish()
            raise
        return self.finish()

    def prepare_library(self, library, directory):
        if not library.exists():
            raise Failure(f"there is no {library}")
        # The loader splits LD_PRELOAD at colons and blanks; the way to us may have some.
        link = directory / library_name
        link.symlink_to(library)
        rendezvous = directory / "run"
        rendezvous.mkdir(mode=0o711)
        loaded = [str(link), os.environ.get("LD_PRELOAD", "")]
        self.environment.update(
            LD_PRELOAD=":".join(filter(None, loaded)), CONTINUITY_DIR=str(rendezvous),
            CONTINUITY_LOG="info", CONTINUITY_LOG_FILE=self.log.file.name)
        self.environment.setdefault("CONTINUITY_PROBATION", default_probation)

    def start(self):
        """Starts the first server, and the clients once it answers."""
        self.introduce()
        self.server = Server(self.options.command, self.environment, self.output)
        self.wait_for_answer(self.server, start_patience)
        self.load = Load(self.load_program, self.options.target(), self.options.clients)
        self.wait(lambda: self.ask()["requests"] > 0, start_patience,
                  "no client had an answer", tick=0.01)
        if self.stats["failed"]:
            raise Failure("the server fails its clients before any restart: "
                          + self.stats["first_failures"][0])
        # One that has turned itself into a daemon we know only from the first take-over on.
        self.current = None if self.server.wait() else self.server
        self.finish_row(1, self.server.pid, "", "")

    def introduce(self):
        options, say = self.options, self.screen.write
        how = "stopped and started, without Continuity" if options.without else \
            f"restarted by running it again, under {library_name}"
        say(shlex.join(options.command))
        say(f"  {how}; {options.clients} clients, a new connection for every request")
        if not options.without:
            say(f"  CONTINUITY_PROBATION={self.environment['CONTINUITY_PROBATION']}: "
                "an old process stays at least that long")
        say()
        say(columns.format("generation", "pid", "off the air" if options.without else "take-over",
                           "requests", "failed", "" if options.without else "the old one").rstrip())

    def restart(self, generation):
        old = self.current
        self.server = Server(self.options.command, self.environment, self.output)
        self.row = (generation, self.server.pid, "", f"{old.pid} serves" if old else "")
        found = self.wait(self.find_take_over(), start_patience,
                          f"generation {generation} did not take over")
        if isinstance(found, str):
            raise Failure(found)
        seen = time.monotonic()
        self.current = self.server if found.pid == self.server.pid else Process(found.pid)
        if not old or old.pid != found.old:
            old = Process(found.old)
        self.times.append(found.microseconds)
        shown = f"{found.microseconds:.0f} µs"
        self.row = (generation, self.current.pid, shown, f"{old.pid} finishes")
        self.wait(lambda: old.wait() or self.current.wait(), leave_patience,
                  f"pid {old.pid} did not leave", [old])
        if not old.ended:
            raise Failure(f"pid {self.current.pid} ended soon after it had taken over")
        self.finish_row(generation, self.current.pid, shown,
                        f"{old.pid} left after {old.ended - seen:.2f} s")

    def restart_without(self, generation):
        old = self.current
        if not old:
            raise Failure("without Continuity the server must stay in the foreground")
        self.row = (generation, "", "", f"{old.pid} ends")
        begun = time.monotonic()
        old.signal(signal.SIGTERM)
        self.wait(old.wait, leave_patience, f"pid {old.pid} did not end", [old])
        self.server = self.current = Server(self.options.command, self.environment, self.output)
        self.row = (generation, self.server.pid, "", "")
        self.wait_for_answer(self.server, start_patience)
        off_air = (time.monotonic() - begun) * 1e6
        self.times.append(off_air)
        # As with us: time for the clients to notice the new one.
        served = self.ask()["ok"]
        self.wait(lambda: self.ask()["ok"] >= served + 50, start_patience,
                  "no client had an answer", tick=0.02)
        self.finish_row(generation, self.server.pid, f"{off_air / 1000:.1f} ms", "")

    def find_take_over(self):
        """A condition for wait(): the next take-over in the log, or why there is none."""
        begin = len(self.log.lines)
        old, new = self.current, self.server

        def find():
            ends = new.failure(), old and old.wait()  # before we look, lest we miss the line
            self.log.read()
            for line in self.log.lines[begin:]:
                if match := took_over.match(line):
                    return TakeOver(int(match[1]), int(match[2]), float(match[3]) * 1000)
            if ends[0]:
                return f"pid {new.pid} {ends[0]}"
            return f"pid {old.pid} ended before {new.pid} took over" if ends[1] else None
        return find

    def wait(self, condition, seconds, complaint, processes=(), tick=None):
        """Waits until the condition holds, and returns what it returned. It is looked at
        after each event (log, processes) and, for what sends us no event, each tick."""
        deadline = time.monotonic() + seconds
        while True:
            # Before the condition is looked at: who ends after that is an event.
            alive = [process for process in (self.server, self.current, *processes)
                     if process and not process.wait()]
            if result := condition():
                return result
            if any(process.ended for process in alive):
                continue
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise Failure(f"{complaint} within {seconds:.0f} s")
            self.redraw()
            ticks = [remaining, tick, redraw_interval if self.screen.live else None]
            readable([self.log.inotify, *(process.pidfd for process in alive)],
                     min(filter(None, ticks)))
            self.log.read()

    def wait_for_answer(self, server, seconds):
        """A connection is the only way to see that a server without us is there."""
        self.wait(lambda: self.options.connects() or server.failure(), seconds,
                  f"pid {server.pid} accepted no connection", tick=0.005)
        if failure := server.failure():
            raise Failure(f"pid {server.pid} {failure}")

    def ask(self):
        self.stats = self.load.stats()
        return self.stats

    def redraw(self):
        if self.screen.live and self.load:
            generation, pid, shown, old = self.row
            self.ask()
            self.screen.draw(self.line(generation, pid, shown, old))

    def finish_row(self, generation, pid, shown, old):
        self.ask()
        self.screen.write(self.line(generation, pid, shown, old))

    def line(self, generation, pid, shown, old):
        return columns.format(generation, pid, shown, self.stats["requests"],
                              self.stats["failed"], old).rstrip()

    def finish(self):
        """The clients go first, then the last server; the summary, and the exit status."""
        self.stats = self.load.quit()
        stats, say = self.stats, self.screen.write
        say()
        if self.times and not self.options.without:
            p50, p90, p99 = (percentile(self.times, share) for share in (50, 90, 99))
            say(f"take-over: p50 {p50:.0f} µs, p90 {p90:.0f} µs, p99 {p99:.0f} µs")
            p50, p99 = stats["p50_us"] / 1000, stats["p99_us"] / 1000
            say(f"answers: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                f"slowest {stats['worst_ms']:.0f} ms{self.options.remark}")
        if stats["failed"]:
            without = " without Continuity" if self.options.without else ""
            say(f"lost{without}: {describe_losses(stats)}")
        if stats.get("client_error"):
            say(f"not counted: {stats['client_error']} faults of the clients themselves")
        say(f"{stats['requests']} requests, {len(self.times)} restarts, {stats['failed']} failed")
        return 0 if stats["failed"] == 0 and stats["requests"] > 0 else 1


class TakeOver:
    def __init__(self, pid, old, microseconds):
        self.pid = pid
        self.old = old
        self.microseconds = microseconds


def percentile(values, share):
    """The smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]
