"""What has to be built before systems can be compared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from systems import System

_root = Path(__file__).resolve().parents[2]


def install(systems: Iterable[System], *packages: str) -> bool:
    """What is missing of Debian's packages, and what building takes."""
    needed = sorted({*packages, *(package for system in systems for package in system.server.packages)})
    return subprocess.run([_root / "scripts" / "dependencies", "build", "--packages", *needed]).returncode == 0


def build(systems: Iterable[System], targets: list[str]) -> None:
    """Quietly unless it fails; Go only for who needs it."""
    programs = _root / "tests" / "failures" / "programs"
    target = _root / "build" / "release" / "failures"
    target.mkdir(parents=True, exist_ok=True)
    flip = target / "flip"
    go = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(target / "go")}
    commands = [["cmake", "--preset", "release"],
                ["cmake", "--build", "--preset", "release", "--target", *targets],
                ["gcc", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-o", target / "hang.so", programs / "hang.c"]]
    if any(str(flip) in system.server.command for system in systems):
        commands.append(["go", "build", "-o", flip, programs / "flip.go"])
    for command in commands:
        done = subprocess.run(command, cwd=_root, env={**os.environ, **go}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\n{Path(sys.argv[0]).name}: {' '.join(map(str, command))} failed")
