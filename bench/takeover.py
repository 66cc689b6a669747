"""From READY to RETIRED: the time in which nobody accepts, as the successor's log tells it."""

import re
import subprocess

from stage import Failure, Lines, Server
from table import percentile

took_over = re.compile(r"continuity\[(\d+)\]: took over .* in ([0-9.]+) ms$")


class Chain:
    """A server, restarted again and again by running it again."""

    def __init__(self, stage, listeners, addresses=None):
        """Listens on so many ports that the kernel picks, or on those addresses."""
        self.stage = stage
        self.log = Lines()
        self.output = Lines()
        self.server = None
        self.leaving = []
        self.ports = addresses or ["0"] * listeners

    def __enter__(self):
        try:
            self.start()
        except Failure:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in filter(None, (self.server, *self.leaving)):
            server.end()
        self.log.close()
        self.output.close()

    def start(self):
        self.server = Server([self.stage.program("server"), *self.ports], self.stage.with_library,
                             stdout=self.output.input, stderr=self.log.input)
        said = self.output.next(self.server)
        if said is None:
            raise Failure(f"pid {self.server.pid} has ended: {self.last_words()}")
        self.ports = said.split()

    def last_words(self):
        said = "it said nothing"
        while line := self.log.next(self.server):
            said = line
        return said

    def restart(self, old_may_leave=lambda: None):
        """Microseconds from READY to RETIRED."""
        time = self.take_over()
        old_may_leave()
        self.await_leaving()
        return time

    def take_over(self):
        """The same; the old one may stay."""
        self.leaving.append(self.server)
        self.start()
        while not (found := took_over.match(said := self.log.next(self.server) or "")):
            if not said:
                raise Failure(f"pid {self.server.pid} has ended")
        if int(found[1]) != self.server.pid:
            raise Failure(f"pid {found[1]} took over, not {self.server.pid}")
        return float(found[2]) * 1000

    def await_leaving(self):
        while self.leaving:
            self.leaving[-1].wait()
            self.leaving.pop()


def measure(stage, table):
    table.section("take-over: from READY to RETIRED")
    many = stage.few_or_many(30, 200)
    with Chain(stage, 1) as chain:
        report(table, "1 listener", [chain.restart() for _ in range(many)], 300)
    with Chain(stage, 100) as chain:
        report(table, "100 listeners", [chain.restart() for _ in range(many)], 1000)
    with Chain(stage, 1) as chain:
        times = [restart_with_connections(chain, 10000)
                 for _ in range(stage.few_or_many(5, 30))]
        report(table, "1 listener, 10,000 connections", times, 1000)
    with Chain(stage, 1) as chain:
        under_load(table, chain, many)


def report(table, what, times, limit):
    what = f"{what}, {len(times)} restarts: "
    p50, p90, p99 = (percentile(times, share) for share in (50, 90, 99))
    limits = (f"{limit} µs", p50 <= limit) if limit else ()
    table.add(what + "p50", "", f"{p50:.0f} µs", f"best {min(times):.0f} µs", *limits)
    table.add(" " * len(what) + "p90", "", f"{p90:.0f} µs", "")
    table.add(" " * len(what) + "p99", "", f"{p99:.0f} µs", "")


class Clients:
    """bench-clients, which ends with its standard input."""

    def __init__(self, chain, kind, *arguments):
        self.popen = subprocess.Popen(
            [chain.stage.program("clients"), kind, chain.ports[0], *arguments],
            env=chain.stage.without, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end(self):
        """What they said in the end."""
        return self.popen.communicate()[0].strip()


def idle_clients(chain, count):
    clients = Clients(chain, "idle", str(count))
    if clients.popen.stdout.readline() != "open\n":
        raise Failure(f"{count} connections cannot be opened")
    return clients


def restart_with_connections(chain, count):
    clients = idle_clients(chain, count)
    try:
        return chain.restart(old_may_leave=clients.end)
    finally:
        clients.end()


def under_load(table, chain, restarts):
    clients = Clients(chain, "fresh", "8", "endless", "3", r"hello\n")
    try:
        report(table, "1 listener, 8 busy clients", [chain.restart() for _ in range(restarts)],
               None)
    finally:
        said = clients.end()
    found = re.fullmatch(r"(\d+) answered, (\d+) failed", said)
    if not found or int(found[1]) == 0:
        raise Failure(f"the clients said: {said}")
    table.add(f"  requests meanwhile: {found[1]}; failed", "", found[2], "", "0", found[2] == "0")
