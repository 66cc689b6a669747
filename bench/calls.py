"""The steady state: what a wrapper adds to the call it wraps (see calls.c)."""

from statistics import median

from stage import run

limit = 10.0  # nanoseconds
calls_of_a_request = 3

titles = {
    "accept": "accept", "accept4": "accept4", "close": "close",
    "epoll_wait": "epoll_wait, an event ready", "poll": "poll, an event ready",
    "poll-listener": "poll of the listener, an event ready",
    "fcntl": "fcntl(F_GETFL) of a connection", "setsockopt": "setsockopt of a connection",
    "request": "a request: epoll_wait, read, write, and its client",
}


def measure(stage, table):
    table.section("calls: the real one, through the wrapper, in one process (noise)")
    plain = compare(stage, table, [], "")
    compare(stage, table, ["--blocking"], "; blocking listener")
    table.section("the same calls, process against process: what the agent's thread adds")
    for name, (without, with_) in plain.items():
        table.add(titles[name], f"{without:.0f} ns", f"{with_:.0f} ns",
                  f"{with_ - without:+.0f} ns")


def compare(stage, table, options, remark):
    processes = stage.few_or_many(3, 16)
    batches = stage.few_or_many(300, 1000)
    seen = {"without": {}, "with": {}}
    for turn in range(processes):
        for side, environment in stage.sides(turn):
            output = run([stage.program("calls"), *options, str(batches)], environment)
            for line in output.splitlines():
                name, *figures = line.split()
                seen[side].setdefault(name, []).append([float(figure) for figure in figures])
    plain = {}
    for name, figures in seen["with"].items():
        bound, real, difference = (median(column) for column in zip(*figures))
        # Without the library the two are one and the same: what they differ then is noise.
        noise = median(one[2] for one in seen["without"][name])
        note = f"{difference:+.1f} ns" if abs(noise) < 1 else f"{difference:+.1f} ({noise:+.1f}) ns"
        most = limit * (calls_of_a_request if name == "request" else 1)
        keeps = difference <= most
        if not keeps and stage.quick and difference - 2 * abs(noise) <= most:
            keeps = "unclear"
        table.add(titles[name] + remark, f"{real:.0f} ns", f"{bound:.0f} ns", note,
                  f"+{most:.0f} ns", keeps)
        plain[name] = (median(one[0] for one in seen["without"][name]), bound)
    return plain
