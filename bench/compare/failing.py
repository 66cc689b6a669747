"""How long nobody serves after a new version that is a bad one: scripts/failures, in short."""

from __future__ import annotations

import cell
from cell import Cell, Seen, Tools
from report import silence
from scenarios import SCENARIOS
from session import Session, at_once
from sheet import Sheet
from systems import System, known_systems

tried = ("taken", "killed", "hangs")
at_a_time = 6  # they wait most of the time
goal = 0.2  # seconds; 50 ms of them the killed one is stopped before


def measure(session: Session, sheet: Sheet) -> None:
    built = session.stage.programs.parent
    tools = Tools(session.library, built / "continuity-load", built / "failures" / "hang.so")
    systems = list(known_systems(built).values())
    names = session.choose(("killed",), tried)
    repeats = session.choose(1, 2)
    runs = at_once(at_a_time, {(system.title, name, turn): (Cell(system, SCENARIOS[name], tools).run,)
                               for system in systems for name in names for turn in range(repeats)})
    seen = {(system.title, name): [runs[system.title, name, turn] for turn in range(repeats)]
            for system in systems for name in names}
    sheet.section("When the new version is a bad one")
    sheet.say(f"The longest time in which no new connection was answered, and the requests lost besides those that a "
              f"killed process had accepted itself; the worst of {repeats}. *Until somebody acts*: nobody was answered "
              f"{cell.window:.0f} s later either. [failures.md](failures.md) has all of it, and how it was done.",
              *(f"- {SCENARIOS[name].title}" for name in names))
    short = {"taken": "cannot bind", "killed": "is killed", "hangs": "hangs"}
    sheet.table(["the new version", *(short[name] for name in names)],
                [[system.title, *(shown(seen[system.title, name]) for name in names)] for system in systems])
    for system in systems:
        if system.is_ours:
            judge(sheet, system, [run for name in names for run in seen[system.title, name]])
    killed = {system: seen[system.title, "killed"] for system in systems}
    down = [system.title for system, runs in killed.items() if any(run.at_the_end == "nobody" for run in runs)]
    ours = [run for system, runs in killed.items() if system.is_ours for run in runs]
    sheet.headlines.append(
        f"The new version is killed 0.5 s into its service: {', '.join(down) or 'nobody'} "
        f"{'is' if len(down) < 2 else 'are'} down until somebody acts; under Continuity the old one answers again "
        f"after at most {silence(ours)}.")


def shown(runs: list[Seen]) -> str:
    if any(run.fault for run in runs):
        return "not tried"
    return f"{silence(runs)}, {max(run.lost for run in runs)} lost"


def judge(sheet: Sheet, system: System, runs: list[Seen]) -> None:
    faults = [run.fault for run in runs if run.fault]
    sheet.goal(f"{system.title}: a bad version is survived", f"nothing lost, < {goal} s",
               faults[0] if faults else shown(runs),
               all(run.is_right and run.silence < goal for run in runs))
