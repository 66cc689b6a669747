"""What does not depend on the machine's mood: system calls and instructions per request."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from statistics import median

from harness.server import Server
from session import Running, Session, at_once, server_patience
from sheet import Sheet, grouped
from stage import Failure, run

patience = 8.0  # seconds: where one takes that long, it is not repeated
idle = 1.0  # seconds in which a server's own timers are seen
# One compiles as it goes: what it executes is not the same twice. The other lowers its hard
# limit of descriptors, which valgrind refuses, and then does not start.
without_instructions = ("node", "memcached")


def add_counts(session: Session, sheet: Sheet, subjects: dict[str, Server]) -> None:
    if not shutil.which("strace") or not shutil.which("valgrind"):
        raise Failure("strace and valgrind are needed")
    both = {"without": "", "with": str(session.library)}
    rows = []
    # A count is a count, however busy the machine is.
    found = at_once(2, {(name, side): (count, session, name, server, preload)
                        for name, server in subjects.items() for side, preload in both.items()})
    differ = []
    for name in subjects:
        for i, about in enumerate(("connections kept", "a connection a request")):
            (calls, some), (our_calls, ours) = (found[name, side][i] for side in both)
            added = "-" if some is None else f"{grouped(some)} → {grouped(ours)} ({ours / some - 1:+.2%})"
            rows.append([f"{name}, {about}", f"{calls:.1f} → {our_calls:.1f}", added])
            differ += [name] if our_calls > calls + 0.5 else []
    sheet.say("What does not depend on the machine's mood: system calls for a request (`strace -c`, attached to the "
              "server once it runs, one client), and instructions in user space (`valgrind --tool=callgrind`; not of "
              "node, which compiles as it goes, nor of memcached, which valgrind keeps from starting). What a server "
              "does by itself in the same time is left out of the calls.")
    sheet.table(["", "system calls", "instructions"], rows)
    # One more a request, or a wake-up, is one more; less is what how the two fall together decides.
    sheet.goal("system calls added to a request", "none", ", ".join(dict.fromkeys(differ)) or "none", not differ)


def count(session: Session, name: str, server: Server, preload: str) -> list[tuple[float, float | None]]:
    """For each kind of client: calls and instructions a request."""
    requests = session.choose(1000, 2000)
    calls = system_calls(session, server, preload, requests)
    if name in without_instructions:
        return [(one, None) for one in calls]
    # The difference of more and fewer, since to start serving is not what a request costs.
    few, many = requests // 2, 2 * requests
    less, more = ([median(instructions(session, server, preload, kind, asked)
                          for _ in session.repeats(session.choose(1, 3), patience))
                   for kind in ("kept", "fresh")] for asked in (few, many))
    return list(zip(calls, [(some - start) / (many - few) for start, some in zip(less, more)]))


def system_calls(session: Session, server: Server, preload: str, requests: int) -> list[float]:
    with Running(session, server, preload, processor=None) as running:
        length = running.await_answer()
        calls, seconds = traced(running, lambda: time.sleep(idle))
        found = []
        for kind in ("kept", "fresh"):
            rounds = [traced(running, lambda: ask(session, running, kind, requests, length))
                      for _ in session.repeats(session.choose(1, 3), patience)]
            found.append(median((some - calls / seconds * took) / requests for some, took in rounds))
        return found


def traced(running: Running, meanwhile: Callable[[], None]) -> tuple[int, float]:
    """How many, and in how many seconds."""
    listing = running.place.directory / "calls"
    pids = [word for pid in running.family.members() for word in ("-p", str(pid))]
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", listing, *pids], stderr=subprocess.PIPE, text=True)
    try:
        for line in strace.stderr:
            if "attached" in line:  # the first; the others are on their way
                break
        begun = time.monotonic()
        meanwhile()
        seconds = time.monotonic() - begun
    finally:
        strace.terminate()
        strace.communicate(timeout=server_patience)
    said = listing.read_text()
    total = re.search(r"^100\.00 +\S+ +(?:\S+ +)?(\d+)(?: +\d+)? +total$", said, re.MULTILINE)
    return int(total[1]) if total else 0, seconds


def instructions(session: Session, server: Server, preload: str, kind: str, requests: int) -> int:
    valgrind = ["/usr/bin/valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    with Running(session, server, preload, valgrind, processor=None) as running:
        length = running.await_answer()
        ask(session, running, kind, requests, length)
        running.terminate()
        said = running.output()
    counted = re.findall(r"Collected : (\d+)", said)
    if not counted:
        raise Failure(f"callgrind counted nothing: {said[-300:]}")
    return sum(map(int, counted))  # of all its processes


def ask(session: Session, running: Running, kind: str, requests: int, length: int) -> None:
    run([session.program("clients"), kind, str(running.place.port), "1", str(requests), str(length), running.request],
        session.stage.without)
