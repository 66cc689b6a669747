"""What the library costs a program that never needs it, and in space."""

import os
import re
import shutil
import subprocess
import time
from statistics import median

from stage import Failure, Lines, Server, patience, run
from takeover import Chain

program = "/bin/true"  # most that inherits LD_PRELOAD never has a listener
limit_start = 100  # microseconds
limit_fork = 15  # microseconds
limit_size = 300_000
limit_private = 100 * 1024


def measure_start(stage, table):
    runs = stage.few_or_many(300, 2000)
    table.section(f"start: {program}, medians of {runs} pairs")
    sides = [*stage.sides(0), ("empty", {**stage.with_, "LD_PRELOAD": stage.program("empty") + ".so"})]
    times = {side: [] for side, _ in sides}
    for turn in range(runs):
        first = turn % len(sides)
        for side, environment in sides[first:] + sides[:first]:
            begun = time.perf_counter_ns()
            pid = os.posix_spawn(program, [program], environment)
            os.waitpid(pid, 0)
            times[side].append((time.perf_counter_ns() - begun) / 1000)
    without = median(times["without"])
    for side, what in (("with", ""), ("empty", "; with it a library that is empty")):
        added = median(one - other for one, other in zip(times[side], times["without"]))
        limit = (f"+{limit_start} µs", added <= limit_start) if side == "with" else ()
        table.add(f"from fork to exit{what}", f"{without:.0f} µs", f"{median(times[side]):.0f} µs", f"{added:+.0f} µs",
                  *limit)
    if shutil.which("valgrind"):
        without, with_ = (instructions(environment) for _, environment in stage.sides(0))
        table.add("instructions in user space", f"{without:,}", f"{with_:,}",
                  f"{with_ - without:+,}")


def measure_fork(stage, table):
    """Each side many times in turn; the best of each, since what disturbs only adds."""
    rounds = stage.few_or_many(5, 15)
    count = "300"
    table.section(f"fork of a server with a listener, best medians of {rounds} rounds")
    best = {}
    for turn in range(rounds):
        for side, environment in stage.sides(turn):
            note(best, side, environment, stage, count)
        note(best, "thread", stage.without, stage, count, "thread")
    for place, what in enumerate(("fork", "fork to the end of the child")):
        without, with_, thread = (best[side][place] for side in ("without", "with", "thread"))
        limit = (f"+{limit_fork} µs", with_ - without <= limit_fork) if place == 0 else ()
        table.add(what, f"{without:.1f} µs", f"{with_:.1f} µs", f"{with_ - without:+.1f} µs", *limit)
        table.add(f"{what}; without it a thread more", f"{thread:.1f} µs", f"{with_:.1f} µs",
                  f"{with_ - thread:+.1f} µs")


def note(best, side, environment, stage, *arguments):
    found = [int(word) / 1000 for word in run([stage.program("forks"), *arguments], environment).split()[-2:]]
    best[side] = [min(values) for values in zip(found, best.get(side, found))]


def instructions(environment):
    said = run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program],
               environment)
    found = re.search(r"Collected : (\d+)", said)
    if not found:
        raise Failure(f"callgrind counted nothing: {said}")
    return int(found[1])


def measure_size(stage, table):
    table.section("size")
    stripped = stage.directory / "stripped.so"
    subprocess.run(["strip", "-o", stripped, stage.library], check=True)
    size = stripped.stat().st_size
    table.add("the library, stripped", "", f"{size / 1000:.0f} KB", "",
              f"{limit_size // 1000} KB", size <= limit_size)

    with Chain(stage, 1) as chain:
        without = private_memory_without(stage)
        report(table, "an idle server", without, private_memory(chain.server))
        chain.restart()
        report(table, "an idle server that has taken over", without, private_memory(chain.server))


def private_memory_without(stage):
    output = Lines()
    with Server([stage.program("server"), "0"], stage.without, stdout=output.input) as server:
        output.next(server)
        size = private_memory(server)
    output.close()
    return size


def report(table, what, without, with_):
    added = with_ - without
    table.add(f"private memory of {what}", kib(without), kib(with_), f"+{kib(added)}",
              kib(limit_private), added <= limit_private)


def kib(size):
    return f"{size / 1024:.0f} KiB"


def private_memory(server):
    """Bytes that it has written to; of a server that sleeps, in all its threads. Clean pages are
    files': whose they are depends on who else has touched just these."""
    deadline = time.monotonic() + patience
    while not sleeps(server.pid):
        if time.monotonic() > deadline:
            raise Failure(f"pid {server.pid} does not come to rest")
        time.sleep(0.01)
    with open(f"/proc/{server.pid}/smaps_rollup", encoding="ascii") as smaps:
        return int(re.search(r"^Private_Dirty: +(\d+) kB$", smaps.read(), re.MULTILINE)[1]) * 1024


def sleeps(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii") as stat:
            if stat.read().rpartition(")")[2].split()[0] != "S":
                return False
    return True
