"""How a restart grows with what is to be handed over: listeners, workers, connections, old processes."""

from __future__ import annotations

import math
import random
import resource
import time
from collections.abc import Callable
from statistics import median

import svg
from harness.log import Log
from harness.server import known_servers
from session import Running, Session, processor_time, real_time, replaced, server_patience
from sheet import Sheet, time_of
from stage import Failure
from svg import Curve, Panel
from takeover import Chain, idle_clients

most_of_a_core = 0.01
settles = 0.3  # seconds after a take-over, in which it lists what it has
# A slope of 1 is twice as much for twice as many; the best of few runs are no better than this.
linear = 1.15

Points = list[tuple[int, float]]


def measure(session: Session, sheet: Sheet) -> None:
    allow_many_descriptors()
    sheet.section("Scale")
    workers = workers_at_a_time(session)
    with real_time():
        listeners = listeners_at_a_time(session)
        connections, bookkeeping = connections_at_a_time(session)
        generations, drainers = generations_at_a_time(session)
    sheet.say(
        "From READY to RETIRED, in which nobody accepts: medians of some restarts each. Listeners, connections and old "
        "processes are those of a server of one process (`bench/server.c`), workers those of nginx. *Bookkeeping* is "
        "the processor time, of one core, which the old process uses while it does nothing but wait for its "
        f"connections to end, from {settles} s after the take-over on. All but nginx have real-time priority where "
        "that is allowed, so that nothing else that the machine does is in it. Dashed: what grows in proportion. Here "
        f"a process may have {resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,} descriptors (`ulimit -Hn`): a "
        "connection takes one, a listener three while it is handed over.")
    for name, points in (("listeners", listeners), ("workers of nginx", workers),
                         ("connections open", connections), ("generations that drain", generations)):
        more = {} if name != "connections open" else dict(bookkeeping)
        columns = [name, "READY to RETIRED", *(["bookkeeping"] if more else [])]
        sheet.table(columns, [[f"{count:,}", time_of(took), *([f"{more[count]:.2%}"] if more else [])]
                              for count, took in points])
        judge_growth(sheet, name, points)
    worst = max(share for _, share in bookkeeping)
    sheet.goal("drain bookkeeping, of a core", f"≤ {most_of_a_core:.0%}", f"{worst:.2%}", worst <= most_of_a_core)
    sheet.say(f"{generations[-1][0]} generations that drain at once, each with a connection, use {drainers:.2%} of a "
              "core together.")
    sheet.picture("numbers-scale.svg", svg.panels("From READY to RETIRED", [
        Panel("Listeners", "listeners", [Curve("", listeners)], time_of),
        Panel("Workers", "workers of nginx", [Curve("", workers)], time_of),
        Panel("Connections", "connections open", [Curve("", connections)], time_of),
        Panel("Old processes", "generations that drain already", [Curve("", generations)], time_of)]),
        "time from READY to RETIRED by listeners, workers, connections and draining generations")
    sheet.headlines.append(f"{listeners[-1][0]:,} listeners are handed over in {time_of(listeners[-1][1])}, "
                           f"{workers[-1][0]} workers stop accepting in {time_of(workers[-1][1])}, and a process that "
                           f"drains {bookkeeping[-1][0]:,} connections uses {bookkeeping[-1][1]:.2%} of a core.")


def judge_growth(sheet: Sheet, name: str, points: Points) -> None:
    """By what lies between the last tenth and the end: what is small is all fixed cost."""
    last, took = points[-1]
    before, took_before = next((point for point in reversed(points[:-1]) if point[0] * 4 <= last and point[0] > 0),
                               points[0])
    slope = math.log(took / took_before) / math.log(last / max(before, 1))
    sheet.goal(f"growth with {name}", "linear or better", f"× {took / took_before:.1f} from {before:,} to {last:,}",
               slope <= linear)


def allow_many_descriptors() -> None:
    """50,000 connections, of which each end is in one process; only who may raises the limit."""
    wanted = 1 << 17
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (ValueError, PermissionError):
            pass  # then there are fewer


def as_many_as_allowed(counts: list[int], descriptors_each: int) -> list[int]:
    """What is too much becomes as much as there may be."""
    others = 500
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - others) // descriptors_each // 100 * 100
    return sorted({min(count, most) for count in counts})


def at_a_time(session: Session, counts: list[int], seconds: float, repeats: int,
              take: Callable[[int, int], list[float]]) -> Points:
    """The median, in nanoseconds, for each count; all of them are tried, with fewer repeats if they take long."""
    each = seconds / len(counts)
    points = []
    for count in counts:
        begun, times = time.monotonic(), []
        while len(times) < repeats and (not times or time.monotonic() - begun < each):
            times += take(count, min(repeats, 3))
        points.append((count, median(times)))
        if time.monotonic() >= session.ends_at and len(points) > 2:
            break
    return points


def listeners_at_a_time(session: Session) -> Points:
    def take(count: int, restarts: int) -> list[float]:
        # The kernel needs half a minute to pick 10,000 ports that are free. On an address of
        # one's own in the loopback, which is that of nobody else, all are.
        address = f"127.{random.randrange(16, 255)}.{random.randrange(255)}.1"
        with Chain(session.stage, count, [f"{address}:{10000 + i}" for i in range(count)]) as chain:
            return [chain.restart() * 1e3 for _ in range(restarts if count < 5000 else 2)]
    counts = as_many_as_allowed(session.choose([1, 10, 100, 1000, 10000],
                                               [1, 3, 10, 30, 100, 300, 1000, 3000, 10000]), 3)
    return at_a_time(session, counts, session.choose(10, 40), session.choose(3, 20), take)


def workers_at_a_time(session: Session) -> Points:
    counts = session.choose([1, 8, 64], [1, 2, 4, 8, 16, 32, 64, 128, 256])
    return at_a_time(session, counts, session.choose(8, 50), session.choose(3, 10),
                     lambda count, restarts: restart_nginx(session, count, restarts))


def restart_nginx(session: Session, workers: int, restarts: int) -> list[float]:
    server = replaced(known_servers()["nginx"], ("worker_processes 2;", f"worker_processes {workers};"))
    times = []
    with Running(session, server, str(session.library), processor=None) as running:
        log = Log(running.log)
        try:
            running.await_answer()
            for _ in range(restarts):
                old, said = running.family, log.length()
                new = running.start()
                found = log.await_line(r"took over .* in ([0-9.]+) ms$", said, new, server_patience)
                if not found:
                    raise Failure(f"nginx with {workers} workers did not take over: {new.last_words()}")
                times.append(float(found[1]) * 1e6)
                if not old.ended(server_patience):
                    raise Failure(f"nginx with {workers} workers did not leave")
        finally:
            log.close()
    return times


def connections_at_a_time(session: Session) -> tuple[Points, list[tuple[int, float]]]:
    counts = as_many_as_allowed(session.choose([0, 1000, 50000], [0, 1000, 3000, 10000, 30000, 50000]), 1)
    shares: dict[int, float] = {}

    def take(count: int, restarts: int) -> list[float]:
        with Chain(session.stage, 1) as chain:
            return [one(chain, count) for _ in range(min(restarts, session.choose(1, 3)))]

    def one(chain: Chain, count: int) -> float:
        clients = idle_clients(chain, count) if count else idle_clients(chain, 1)
        try:
            if not count:
                clients.end()
            took = chain.take_over() * 1e3
            if count:
                if count not in shares:
                    shares[count] = share_of_a_core(session, [chain.leaving[-1].pid], count)
            clients.end()
            chain.await_leaving()
            return took
        finally:
            clients.end()

    points = at_a_time(session, counts, session.choose(12, 50), session.choose(1, 3), take)
    return points, [(count, shares.get(count, 0.0)) for count, _ in points]


def share_of_a_core(session: Session, pids: list[int], connections: int) -> float:
    """Of many connections it looks every five seconds only: some of these looks are to be seen."""
    time.sleep(settles)
    seconds = session.choose(3.0, 3.0 if connections < 10000 else 11.0)
    before = sum(map(processor_time, pids))
    time.sleep(seconds)
    return (sum(map(processor_time, pids)) - before) / 1e9 / seconds


def generations_at_a_time(session: Session) -> tuple[Points, float]:
    """Each of them is kept by a connection; and what they use together when they are most."""
    most, rounds = session.choose((10, 1), (20, 5))
    times: dict[int, list[float]] = {}
    for turn in range(rounds):
        clients = []
        with Chain(session.stage, 1) as chain:
            try:
                for draining in range(most + 1):
                    clients.append(idle_clients(chain, 1))
                    times.setdefault(draining, []).append(chain.take_over() * 1e3)
                if turn == 0:
                    share = share_of_a_core(session, [server.pid for server in chain.leaving], most)
            finally:
                for client in clients:
                    client.end()
            chain.await_leaving()
    shown = [draining for draining in (0, 1, 2, 3, 5, 7, 10, 14, 20) if draining <= most]
    return [(draining, median(times[draining])) for draining in shown], share
