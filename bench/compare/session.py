"""What all sections of scripts/compare share: tools, processors, time, and servers under test."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from harness.process import Process, environment_without_ours
from harness.server import Place, Server

from stage import Failure, Stage

source = Path(__file__).resolve().parents[2]
server_patience = 60.0  # under valgrind, on a busy machine


@dataclass
class Session:
    """One run of everything, on one machine."""

    stage: Stage
    quick: bool
    control: bool
    ends_at: float  # on time.monotonic(): when no repeat may begin any more

    @property
    def library(self) -> Path:
        return Path(self.stage.with_library["LD_PRELOAD"])

    def program(self, name: str) -> str:
        return self.stage.program(name)

    def choose(self, quick, full):
        return quick if self.quick else full

    def repeats(self, most: int, seconds: float, least: int = 1) -> Iterator[int]:
        """Turns, as many as there is time for: a slow machine makes fewer, and the pages say how many."""
        ends_at = min(time.monotonic() + seconds, self.ends_at)
        for turn in range(most):
            if turn >= least and time.monotonic() >= ends_at:
                return
            yield turn


def at_once(most: int, tasks: dict) -> dict:
    """What each task returns, by its name; so many at a time. Once one fails, no other begins."""
    with ThreadPoolExecutor(most) as pool:
        try:
            futures = {name: pool.submit(*task) for name, task in tasks.items()}
            return {name: future.result() for name, future in futures.items()}
        finally:
            pool.shutdown(cancel_futures=True)  # what has begun cleans up after itself


# ---- Processors ---------------------------------------------------------------------

_allowed = sorted(os.sched_getaffinity(0))
load_processor = _allowed[0]
server_processor = _allowed[-1]


@contextlib.contextmanager
def on(processor: int | None):
    """What this thread starts meanwhile runs there; None: wherever the kernel likes."""
    os.sched_setaffinity(0, _allowed if processor is None else {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, _allowed)


@contextlib.contextmanager
def real_time():
    """What this thread starts meanwhile comes before everything else on the machine. Whether it may."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


# ---- Servers --------------------------------------------------------------------------

def replaced(server: Server, *texts: tuple[str, str]) -> Server:
    """With other texts in its files, each (what, instead)."""
    files = dict(server.files)
    for what, instead in texts:
        with_it = [name for name in files if what in files[name]]
        if not with_it:
            raise Failure(f"{server.title}: no file has {what!r}")
        for name in with_it:
            files[name] = files[name].replace(what, instead)
    return replace(server, files=files)


class Running:
    """A server in a place of its own, gone when the block is left."""

    def __init__(self, session: Session, server: Server, preload: str, before: list[str] | None = None,
                 processor: int | None = server_processor) -> None:
        self.place = Place(server)
        self.rendezvous = self.place.directory / "rendezvous"
        self.rendezvous.mkdir(mode=0o711)
        self.rendezvous.chmod(0o711)
        self.log = self.place.directory / "continuity.log"
        self.server, self.preload, self.processor = server, preload, processor
        self.before = before or []
        self.families: list[Process] = []

    def __enter__(self) -> Running:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for family in self.families:
            family.destroy()
        self.place.remove()

    def start(self) -> Process:
        environment = environment_without_ours()
        environment.update(CONTINUITY_DIR=str(self.rendezvous), CONTINUITY_PROBATION="10ms",
                           CONTINUITY_LOG_FILE=str(self.log))
        command = [*self.before, *self.place.fill_all(self.server.command)]
        output = self.place.directory / f"{len(self.families)}.output"
        with on(self.processor):
            self.families.append(Process(command, environment, self.preload, self.place.directory, output))
        return self.families[-1]

    @property
    def family(self) -> Process:
        return self.families[-1]

    def await_answer(self) -> int:
        """The length of an answer, once there is one."""
        deadline = time.monotonic() + server_patience
        while time.monotonic() < deadline and not self.family.ended():
            try:
                answer = self.ask_once()
            except OSError:
                answer = b""
            if answer:
                self.place.release_port()
                return len(answer)
            time.sleep(0.005)
        raise Failure(f"{self.server.title} does not answer: {self.family.last_words()}")

    def ask_once(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.place.port), 5) as connection:
            connection.sendall(self.request.replace(r"\r", "\r").replace(r"\n", "\n").encode())
            answer = b""
            while not is_whole(answer, self.server):
                block = connection.recv(65536)
                if not block:
                    return b""
                answer += block
        return answer

    @property
    def request(self) -> str:
        return self.server.send or r"GET / HTTP/1.1\r\nHost: compare\r\n\r\n"

    def output(self) -> str:
        return (self.place.directory / f"{len(self.families) - 1}.output").read_text(errors="replace")

    def processor_time(self) -> int:
        """Nanoseconds that all its processes together have run."""
        return sum(processor_time(pid) for pid in self.family.members())

    def terminate(self) -> None:
        self.family.terminate()
        if not self.family.ended(server_patience):
            raise Failure(f"{self.server.title} does not end")


def processor_time(pid: int) -> int:
    """See man clock_getcpuclockid."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0  # it has ended


def is_whole(answer: bytes, server: Server) -> bool:
    if server.expect:
        return answer.endswith(server.expect.replace(r"\r", "\r").replace(r"\n", "\n").encode())
    head, separator, body = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return bool(separator) and len(body) >= int(line.split(b":")[1])
    return False
