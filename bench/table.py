"""The table: a line for each measurement, and whether it keeps its limit."""

import statistics

columns = "{:<50} {:>12} {:>12} {:>17} {:>10}  {}"


class Table:
    def __init__(self):
        self.count = {"ok": 0, "MISSED": 0, "unclear": 0}

    def head(self):
        self.write("", "without", "with", "difference", "limit", "")

    def section(self, title):
        print(f"\n{title}", flush=True)

    def add(self, what, without, with_, difference, limit="", keeps=None):
        """A line. keeps: whether it keeps the limit, "unclear", or None without a limit."""
        verdict = {None: "", True: "ok", False: "MISSED"}.get(keeps, keeps)
        if verdict:
            self.count[verdict] += 1
        self.write("  " + what, without, with_, difference, limit, verdict)

    def write(self, *cells):
        print(columns.format(*cells).rstrip(), flush=True)

    def summary(self):
        unclear = self.count["unclear"]
        print(f"\n{self.count['ok']} limits kept, {self.count['MISSED']} missed"
              + (f", {unclear} unclear" if unclear else ""))
        return 1 if self.count["MISSED"] else 0


def percentile(values, share):
    """The smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def doubt(values):
    """How far the median may be off: 95 of 100 times it is within this distance
    (McGill, Tukey and Larsen, 1978)."""
    if len(values) < 4:
        return float("inf")
    lower, _, upper = statistics.quantiles(values, n=4)
    return 1.57 * (upper - lower) / len(values) ** 0.5
