"""Ways in which an upgrade goes wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

import cell
from cell import Cell


@dataclass(frozen=True, eq=False)
class Scenario:
    title: str
    how: str  # for people
    bring_about: Callable[[Cell], None]
    hangs: bool = False  # hang.so is preloaded, with what FAILURES_HANG says
    kills: bool = False


def _taken(tried: Cell) -> None:
    tried.take_second_address()
    tried.upgrade()


def _dies(number: int) -> Callable[[Cell], None]:
    def bring_about(tried: Cell) -> None:
        tried.upgrade()
        tried.await_take_over()
        tried.pause(cell.alive_for)
        tried.kill_new(number)
    return bring_about


def _hangs(tried: Cell) -> None:
    tried.make_starts_hang()
    tried.upgrade()


def _twice(tried: Cell) -> None:
    tried.upgrade()
    tried.pause(cell.between_two)
    tried.upgrade()


SCENARIOS = {
    "taken": Scenario(
        "the new process cannot bind one of its two addresses",
        "The second address of the new version is one on which another program listens.", _taken),
    "killed": Scenario(
        f"the new process is killed {cell.alive_for} s after it has taken over",
        f"SIGKILL, {cell.alive_for} s after its first answer. It is stopped for {cell.stopped_for * 1000:.0f} ms "
        "before (SIGSTOP), so that the load client sees from outside which connections it has accepted. These "
        f"{cell.stopped_for * 1000:.0f} ms are part of the time without an answer.", _dies(signal.SIGKILL), kills=True),
    "crashes": Scenario(
        f"the new process crashes {cell.alive_for} s after it has taken over", "The same with SIGSEGV.",
        _dies(signal.SIGSEGV), kills=True),
    "hangs": Scenario(
        "the new process hangs when it is all but started",
        "It goes to sleep for good where it would wait for work for the first time, with all its addresses bound: by "
        "a preloaded library, `tests/failures/programs/hang.c`; the Go program does it by itself, before `Ready()`.",
        _hangs, hangs=True),
    "twice": Scenario(
        "two upgrades at once", f"Two good upgrades, the second begun {cell.between_two * 1000:.0f} ms after the "
        "first.", _twice),
}
