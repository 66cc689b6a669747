"""What a run of a server has open, runs, maps and has written, counted from outside.

Clients come and go while we look, and with them descriptors, threads and processes. So a
count is of what is there in each of several looks, one after the other.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from harness.process import Process, library_numbers, tcp_sockets

_looks = 5
_between_looks = 0.02
_shared_memory = Path("/dev/shm")
# Of who was killed before it could be announced a socket without its name stays, for the library
# cannot tell it from one that is being made. The next process removes it when it is a minute old.
_unpublished = re.compile(r"\.[0-9a-f]{16}\.sock")
_old = 90


@dataclass
class Counts:
    """Of all processes of all generations that have not ended."""

    processes: int = 0
    threads: int = 0
    descriptors: Counter = field(default_factory=Counter)  # by kind
    ours: Counter = field(default_factory=Counter)  # of them the library's
    listening: int = 0  # TCP sockets
    shared: int = 0  # objects in shared memory: named, memfds, mappings of what has no name any more
    rendezvous: int = 0  # whatever is in its directory, but what will be removed
    files: int = 0  # in the directory of the server and in its TMPDIR
    memory: int = 0  # KiB: anonymous and shared memory; of pages that several have each has its part

    def differences(self, other: Counts, memory_bound: int, helpers: int) -> list[str]:
        """What is not the same there, memory by more than so many KiB, threads by more than so many."""
        found = []
        for name in (one.name for one in fields(self)):
            mine, others = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                found += [f"{name}, {kind}: {mine[kind]}, then {others[kind]}"
                          for kind in sorted(mine.keys() | others.keys()) if mine[kind] != others[kind]]
            elif name != "memory":
                allowed = helpers if name == "threads" else 0
                found += [f"{name}: {mine}, then {others}"] * (abs(mine - others) > allowed)
            elif others > mine + memory_bound:
                found.append(f"memory: {mine} KiB, then {others} KiB")
        return found


@dataclass
class Where:
    """The places in which a run leaves files."""

    rendezvous: Path
    directory: Path  # of the server
    log: Path  # of the library
    not_the_servers: re.Pattern  # names in the directory


def count(generations: Iterable[Process], where: Where, removed_next: Collection[Path]) -> Counts:
    """`removed_next` is at the rendezvous, and the next process removes it."""
    generations = list(generations)
    looks = [_look(generations)]
    while len(looks) < _looks:
        time.sleep(_between_looks)  # nothing announces that a connection has ended
        looks.append(_look(generations))
    lasting = {name: set.intersection(*(one[name] for one in looks)) for name in looks[0]}
    # A process opens the library's log when it has something to say for the first time.
    lasting["descriptors"] -= {(pid, number, link) for pid, number, link in lasting["descriptors"]
                               if link == str(where.log) and number == max(
                                   one[1] for one in lasting["descriptors"] if one[0] == pid and one[2] == link)}
    listeners = tcp_sockets(listening=True)
    kinds = {(pid, number): _kind(link, listeners) for pid, number, link in lasting["descriptors"]}
    links = {link for _, _, link in lasting["descriptors"]}
    beside = [path for path in where.directory.rglob("*")
              if where.rendezvous not in (path, *path.parents) and not where.not_the_servers.fullmatch(path.name)]
    named = [path for path in _shared_memory.rglob("*") if path.is_file()] if is_shared_memory_private() else []
    return Counts(
        processes=len({pid for pid, _ in lasting["threads"]}),
        threads=len(lasting["threads"]),
        descriptors=Counter(kinds.values()),
        ours=Counter(kind for (_, number), kind in kinds.items() if number in library_numbers),
        listening=len(links & listeners),
        shared=len({path.stat().st_ino for path in named} | lasting["shared"]),
        rendezvous=sum(path not in removed_next and _stays(path) for path in where.rendezvous.rglob("*")),
        files=len(beside),
        memory=sum(map(_memory, {pid for pid, _ in lasting["threads"]})))


def is_shared_memory_private() -> bool:
    """Whether nobody else has objects there: `scripts/endure` mounts one of its own where it may."""
    return "ENDURE_PRIVATE_SHM" in os.environ


def _look(generations: list[Process]) -> dict[str, set]:
    seen: dict[str, set] = {"threads": set(), "descriptors": set(), "shared": set()}
    for pid in [member for one in generations if not one.ended() for member in one.members()]:
        process = Path("/proc", str(pid))
        try:
            seen["threads"] |= {(pid, thread) for thread in os.listdir(process / "task")}
            for name in os.listdir(process / "fd"):
                seen["descriptors"] |= _descriptor(pid, process / "fd" / name, seen["shared"])
            seen["shared"] |= _mapped_objects((process / "maps").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return seen


def _descriptor(pid: int, path: Path, shared: set[int]) -> set[tuple[int, int, str]]:
    try:
        link = os.readlink(path)
        if link.startswith("/memfd:"):
            shared.add(path.stat().st_ino)
        return {(pid, int(path.name), link)}
    except FileNotFoundError:
        return set()  # closed meanwhile


def _mapped_objects(maps: str) -> set[int]:
    """Those that are no files which somebody could open."""
    found = set()
    for line in maps.splitlines():
        _, _, _, _, inode, *path = line.split(maxsplit=5)
        if path and (path[0].startswith(("/dev/shm/", "/memfd:", "/SYSV")) or path[0].endswith(" (deleted)")):
            found.add(int(inode))
    return found


def _kind(link: str, listeners: set[str]) -> str:
    if link in listeners:
        return "listener"
    if link.startswith("/memfd:"):
        return "memfd"
    if link.startswith("/"):
        return "file"
    return link.removeprefix("anon_inode:").partition(":[")[0].strip("[]")


def _stays(path: Path) -> bool:
    try:
        return not _unpublished.fullmatch(path.name) or time.time() - path.lstat().st_mtime > _old
    except FileNotFoundError:
        return False


def _memory(pid: int) -> int:
    try:
        rollup = Path("/proc", str(pid), "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # Not of files: how much of a library's pages is whose depends on who else has it mapped.
    return sum(int(size) for size in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB$", rollup, re.MULTILINE))
