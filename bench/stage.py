"""Where measurements take place: a directory, two environments, and servers in them."""

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

library_name = "libcontinuity.so"
patience = 60.0  # longer than anything we wait for should take


class Failure(Exception):
    """The measurement cannot be made; the text says why."""


class Stage:
    def __init__(self, built, directory, quick, control):
        self.library = built / library_name
        self.programs = built / "bench"
        self.directory = Path(directory)
        self.quick = quick
        self.control = control
        for needed in (self.library, *map(self.program, ("server", "clients", "calls", "forks"))):
            if not Path(needed).exists():
                raise Failure(f"there is no {needed}")
        self.without = {name: value for name, value in os.environ.items()
                        if name != "LD_PRELOAD" and not name.startswith("CONTINUITY_")}
        rendezvous = self.directory / "run"
        rendezvous.mkdir(mode=0o711)
        # The loader splits LD_PRELOAD at colons and blanks; the way to us may have some.
        link = self.directory / library_name
        link.symlink_to(self.library)
        self.with_library = {**self.without, "LD_PRELOAD": str(link),
                             "CONTINUITY_DIR": str(rendezvous), "CONTINUITY_PROBATION": "10ms"}
        self.with_ = self.without if control else self.with_library

    def program(self, name):
        return str(self.programs / f"bench-{name}")

    def sides(self, turn):
        """Both environments, and which comes first changes with each turn."""
        both = [("without", self.without), ("with", self.with_)]
        return both if turn % 2 == 0 else both[::-1]

    def few_or_many(self, few, many):
        return few if self.quick else many


class Server:
    """A process of ours, which is gone when the block that uses it is left."""

    def __init__(self, command, environment, **streams):
        self.popen = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                      **{"stdout": subprocess.DEVNULL,
                                         "stderr": subprocess.DEVNULL, **streams})
        self.pid = self.popen.pid
        self.pidfd = os.pidfd_open(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.popen.poll() is None:
                self.popen.send_signal(sign)
                try:
                    self.popen.wait(5)
                except subprocess.TimeoutExpired:
                    continue
        self.forget()

    def wait(self):
        try:
            self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failure(f"pid {self.pid} did not leave") from None
        self.forget()

    def forget(self):
        if self.pidfd is not None:
            os.close(self.pidfd)
        self.pidfd = None

    def processor_time(self):
        """Nanoseconds that all its threads together have run: man clock_getcpuclockid,
        whose result for another process is composed like this."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def wait_for_answer(self, port):
        """A connection is the only way to see that a server is there."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self.popen.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", port), patience)
            except ConnectionRefusedError:
                time.sleep(0.002)
        raise Failure(f"{self.popen.args[0]} accepts no connection")


class Lines:
    """A pipe, read line by line with a deadline."""

    def __init__(self):
        self.output, self.input = os.pipe()
        self.unread = b""

    def next(self, server):
        """What the server says next; None if it has ended instead."""
        deadline = time.monotonic() + patience
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(server.pidfd, select.POLLIN)
        while b"\n" not in self.unread:
            ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise Failure(f"pid {server.pid} has said nothing for {patience:.0f} s")
            if self.output not in dict(ready):
                return None
            self.unread += os.read(self.output, 65536)
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode(errors="replace")

    def close(self):
        os.close(self.output)
        os.close(self.input)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command, environment):
    """Its output; both streams."""
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=5 * patience, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} ended with status {done.returncode}: "
                      f"{done.stdout.strip()[-300:]}")
    return done.stdout
