"""The steady state: servers that people run, with and without the library, on a processor of their own.

Every pair is two fresh processes, since where a process finds its memory alone makes a
difference of some per cent for as long as it lives; and which of the two comes first
changes with each turn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from statistics import median

import svg
from counts import add_counts
from harness.server import Server, known_servers
from session import Running, Session, load_processor, on, replaced
from sheet import Sheet, grouped, time_of
from stage import Failure, run
from table import doubt

clients = 8
goal = 0.99
visible = 0.97  # a slowed server is below that
settling = 300  # milliseconds: the library's thread has parted with the program's descriptors (docs/design.md)

kinds = {"kept": "connections kept", "fresh": "a connection a request"}


def subjects() -> dict[str, Server]:
    """As the trials have them, with one worker each, that there be one processor's worth."""
    known = known_servers()
    timeout = "keepalive_timeout 60s;"
    kept = "max-keep-alive-requests = 1000"
    return {
        "nginx": replaced(known["nginx"], ("worker_processes 2;", "worker_processes 1;"),
                          (timeout, timeout + " keepalive_requests 100000000;")),
        # It looks after itself once a second, and not ten times: that would be counted with the requests.
        "redis": replace(known["redis-tcp"], command=[*known["redis-tcp"].command, "--hz", "1"]),
        "memcached": known["memcached"],
        "haproxy": replaced(known["haproxy"], ("nbthread 2", "nbthread 1")),
        "node": known["node"],
        "lighttpd": replaced(known["lighttpd"], (kept, kept + "00000")),
    }


@dataclass
class Seen:
    """Of one process, by one kind of client."""

    rate: float
    p50: float
    p99: float
    p999: float
    processor: float  # nanoseconds a request


def sides(session: Session) -> dict[str, str]:
    """By name, what is preloaded; the first is what the others are compared with."""
    if session.control:
        return {"without": "", "the same": "", "slowed": session.program("slow") + ".so"}
    return {"without": "", "with": str(session.library)}


def measure(session: Session, sheet: Sheet) -> None:
    seen = take(session)
    compared = [name for name in sides(session) if name != "without"]
    pairs = min(len(runs) for runs in seen.values())
    sheet.section("Steady state")
    sheet.say(
        f"{clients} clients at work all the time, on one processor; the server on another. Of each pair one server "
        f"runs under the library and one without, by turns; {pairs} pairs, fresh processes each, at work for "
        f"{settling} ms before. Requests a second, and how long their answers take (medians of the runs); in brackets, "
        "with to without: the median of the pairs, ± how far chance may have moved it. For requests above 1 is better, "
        "for times below. *Processor* is what the server has used for a request, in all its processes and threads.")
    rows, picture = [], []
    for name, server in subjects().items():
        group = []
        for kind, about in kinds.items():
            for side in compared:
                runs = list(zip(seen[name, kind, "without"], seen[name, kind, side]))
                shown = side if session.control else ""
                rows.append([f"{name}, {about}{', ' + shown if shown else ''}", *cells(runs)])
                ratios = [one.rate / other.rate for other, one in runs]
                judge(session, sheet, f"{name}, {about}", side, ratios)
                group.append(svg.Bar(f"{about}{' ' + shown if shown else ''}", median(ratios),
                                     f"{median(ratios):.3f}", svg.ours))
        picture.append((name, group))
    sheet.table(["", "requests/s", "p50", "p99", "p99.9", "processor"], rows)
    if session.control:
        return
    sheet.picture("numbers-steady.svg", svg.bars(
        "Requests a second under the library, of what they are without", picture, 0, "ratio", [(goal, "0.99")],
        logarithmic=False), "requests a second with and without the library")
    rates = [median(one.rate / other.rate for other, one in zip(seen[name, kind, "without"], seen[name, kind, "with"]))
             for name in subjects() for kind in kinds]
    sheet.headlines.append(
        f"Requests a second of nginx, redis, memcached, haproxy, node and lighttpd under the library, of what they "
        f"are without: {min(rates):.3f} to {max(rates):.3f}, median {median(rates):.3f}.")
    add_counts(session, sheet, subjects())


def cells(runs: list[tuple[Seen, Seen]]) -> list[str]:
    """Of pairs, without and with."""
    def cell(field: str, shown) -> str:
        without, with_ = (median(getattr(pair[side], field) for pair in runs) for side in (0, 1))
        ratios = [getattr(with_, field) / getattr(without, field) for without, with_ in runs]
        return f"{shown(without)} → {shown(with_)} ({median(ratios):.3f}{shown_doubt(ratios)})"
    return [cell("rate", grouped), *(cell(field, time_of) for field in ("p50", "p99", "p999", "processor"))]


def shown_doubt(ratios: list[float]) -> str:
    return f" ±{doubt(ratios):.3f}" if len(ratios) >= 4 else ""


def judge(session: Session, sheet: Sheet, what: str, side: str, ratios: list[float]) -> None:
    found = median(ratios)
    about = f"{found:.3f}{shown_doubt(ratios)}"
    if side == "slowed":
        sheet.goal(f"{what}, slowed: is seen", f"< {visible}", about, found < visible)
    elif session.control:
        keeps = abs(found - 1) <= 1 - goal or ("unclear" if abs(found - 1) - doubt(ratios) <= 1 - goal else False)
        sheet.goal(f"{what}, with itself: is the same", f"1 ± {1 - goal:.2f}", about, keeps)
    else:
        keeps = found >= goal or ("unclear" if found + doubt(ratios) >= goal else False)
        sheet.goal(f"requests/s: {what}", f"≥ {goal}", about, keeps)
        if keeps is not True:
            sheet.slower.append(f"{what}: {about} of the requests a second without the library.")


def take(session: Session) -> dict[tuple[str, str, str], list[Seen]]:
    seen: dict[tuple[str, str, str], list[Seen]] = {}
    names = list(sides(session).items())
    for turn in session.repeats(session.choose(3, 60), session.choose(45, 420), 2):
        for name, server in subjects().items():
            for side, preload in names if turn % 2 == 0 else names[::-1]:
                with Running(session, server, preload) as running:
                    length = running.await_answer()
                    ask(session, running, "kept", length, settling)
                    for kind in kinds:
                        ask(session, running, kind, length, 50)  # warms up
                        found = ask(session, running, kind, length, 300)
                        seen.setdefault((name, kind, side), []).append(found)
    return seen


def ask(session: Session, running: Running, kind: str, length: int, milliseconds: int) -> Seen:
    before = running.processor_time()
    with on(load_processor):
        said = run([session.program("clients"), kind, str(running.place.port), str(clients), f"{milliseconds}ms",
                    str(length), running.request], session.stage.without)
    spent = running.processor_time() - before
    found = re.fullmatch(r"(\d+) answered, 0 failed\n(\d+) (\d+) (\d+) (\d+)\n", said)
    if not found or int(found[1]) == 0:
        raise Failure(f"{running.server.title}: the clients said: {said}")
    answered, took, *times = map(int, found.groups())
    return Seen(answered / took * 1e9, *times, spent / answered)
