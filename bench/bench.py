"""What scripts/bench does: reads its command line, builds, measures section by section."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import calls
import footprint
import processor
import takeover
from stage import Failure, Stage
from table import Table

source = Path(__file__).resolve().parents[1]

sections = {
    "calls": calls.measure,
    "processor": processor.measure,
    "take-over": takeover.measure,
    "start": footprint.measure_start,
    "fork": footprint.measure_fork,
    "size": footprint.measure_size,
}
comparing = ("calls", "processor", "start", "fork")  # those that --control can do


class Usage(Exception):
    """What is wrong with the command line."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Usage(message)


def parse(arguments):
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--built")
    parser.add_argument("sections", nargs="*")
    options = parser.parse_args(arguments)
    for section in options.sections:
        if section not in sections:
            raise Usage(f"there is no section '{section}'")
        if options.control and section not in comparing:
            raise Usage(f"--control has nothing to compare in '{section}'")
    options.sections = options.sections or (comparing if options.control else list(sections))
    return options


def build(options):
    """Returns the directory with the library and the programs of ours in it."""
    if options.built:
        return Path(options.built).resolve()
    subprocess.run([source / "scripts/dependencies"], check=True)
    for step in (["cmake", "--preset", "release"], ["cmake", "--build", "--preset", "release"]):
        subprocess.run(step, cwd=source, check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)
    return source / "build/release"


def warn_if_busy():
    load = os.getloadavg()[0]
    if load > 0.5 * (os.cpu_count() or 1):
        print(f"scripts/bench: this machine is busy with other things (load {load:.1f}); "
              "do not trust the figures", file=sys.stderr)


def main(arguments):
    try:
        options = parse(arguments)
    except Usage as wrong:
        print(f"scripts/bench: {wrong}; see scripts/bench --help", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(errors="replace")  # locales without a µ exist
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = tempfile.mkdtemp(prefix="continuity-bench.")
    begun = time.monotonic()
    try:
        stage = Stage(build(options), directory, options.quick, options.control)
        warn_if_busy()
        table = Table()
        table.head()
        for section in options.sections:
            sections[section](stage, table)
        status = table.summary()
        print(f"{time.monotonic() - begun:.0f} s")
        return status
    except KeyboardInterrupt:
        print("\nscripts/bench: interrupted", file=sys.stderr)
        return 130
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        print(f"scripts/bench: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
