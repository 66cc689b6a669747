"""What scripts/compare does: reads its command line, builds, measures section by section, writes."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

source = Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(source / folder) for folder in ("bench", "tests/failures", "tests/servers")]

import building  # noqa: E402
import failing  # noqa: E402
import page  # noqa: E402
import restarts  # noqa: E402
import scale  # noqa: E402
import steady  # noqa: E402
import systems  # noqa: E402
import ways  # noqa: E402
import weight  # noqa: E402
from cell import NotTried  # noqa: E402
from harness.load import LoadFault  # noqa: E402
from session import Session  # noqa: E402
from sheet import Sheet  # noqa: E402
from stage import Failure, Stage  # noqa: E402
from systems import System  # noqa: E402

sections = {"steady": steady.measure, "restarts": restarts.measure, "scale": scale.measure,
            "weight": weight.measure, "failing": failing.measure}
longest = 20.5 * 60  # seconds; no repeat begins later, and what is left takes less than four minutes
tools = ("binutils", "strace", "valgrind")
targets = ["continuity_preload", "continuity-load", "tiny-server", "bench-asking", "bench-calls", "bench-clients",
           "bench-empty", "bench-forks", "bench-paced", "bench-passing", "bench-server", "bench-slow", "bench-stamp"]
built = source / "build" / "release"


problems = (Failure, NotTried, LoadFault, OSError, subprocess.SubprocessError)


class Usage(Exception):
    """What is wrong with the command line."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise Usage(message)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--no-install", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("sections", nargs="*")
    options = parser.parse_args(arguments)
    for section in options.sections:
        if section not in sections:
            raise Usage(f"there is no section '{section}'")
    if options.control and (options.write or options.sections not in ([], ["steady"])):
        raise Usage("--control is of the steady state, and writes nothing")
    options.is_whole = not options.sections and not options.control
    options.sections = ["steady"] if options.control else options.sections or list(sections)
    return options


def all_systems() -> list[System]:
    """Everything that is started, for its packages and its version."""
    found = [System(name, server, "", systems.again) for name, server in steady.subjects().items()]
    found += [system for group in ways.groups(built) for system in group.ways]
    return found + list(systems.known_systems(built).values())


def prepare(options: argparse.Namespace) -> list[System]:
    compared = all_systems()
    if not options.no_install and not building.install(compared, *tools):
        raise Failure("not everything could be installed")
    try:
        building.build(compared, targets)
    except FileNotFoundError as missing:
        if not options.no_install:
            raise
        raise Failure(f"{missing.filename} is not installed: leave out --no-install") from missing
    return compared


def measure(options: argparse.Namespace, directory: str, begun: float) -> None:
    compared = prepare(options)
    conditions = page.Conditions.now(options.quick)
    if complaint := conditions.complaint():
        print(f"scripts/compare: {complaint}", file=sys.stderr)
    stage = Stage(built, directory, options.quick, False)
    session = Session(stage, options.quick, options.control, begun + longest)
    sheet = Sheet()
    failed = [name for name in options.sections if not measured(name, session, sheet)]
    kept, missed, unclear = (sum(goal.keeps is is_so or goal.keeps == is_so for goal in sheet.goals)
                             for is_so in (True, False, "unclear"))
    print(f"\n{kept} goals reached, {missed} missed, {unclear} unclear; {time.monotonic() - begun:.0f} s", flush=True)
    if options.control:
        if failed or missed:  # in few repeats on a busy machine some are unclear
            raise Failure("the control did not come out as it must")
        return
    conditions.note_the_end(time.monotonic() - begun)
    if options.is_whole or options.write:
        page.write(sheet, conditions, compared, options.write or source / "docs")
    if options.is_whole and not options.write:
        page.write_headlines(sheet, conditions, source / "README.md")
    if failed:
        raise Failure(f"not everything was measured: {', '.join(failed)}")


def measured(name: str, session: Session, sheet: Sheet) -> bool:
    """Whether it was. What fails takes nothing else with it, and stands on the page."""
    before = time.monotonic()
    try:
        sections[name](session, sheet)
    except problems as problem:
        sheet.fault(name, str(problem))
        return False
    finally:
        print(f"{name}: {time.monotonic() - before:.0f} s", flush=True)
    return True


def come_first() -> None:
    """Before what else the machine does; whoever we start, too."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except PermissionError:
        pass


def main(arguments: list[str]) -> int:
    try:
        options = parse(arguments)
    except Usage as wrong:
        print(f"scripts/compare: {wrong}; see scripts/compare --help", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(errors="replace")  # locales without a µ exist
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    come_first()
    directory = tempfile.mkdtemp(prefix="continuity-compare.")
    Path(directory).chmod(0o711)  # servers that leave root behind must get through
    try:
        measure(options, directory, time.monotonic())
        return 0
    except KeyboardInterrupt:
        print("\nscripts/compare: interrupted", file=sys.stderr)
        return 130
    except problems as failure:
        print(f"scripts/compare: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
