"""The processes of a run and the log they write, as things that can be waited for.

Nothing here sleeps: a process announces its end through its pidfd, the log its new
lines through inotify.
"""

import ctypes
import os
import select
import signal
import subprocess
import time

libc = ctypes.CDLL(None, use_errno=True)
in_modify = 2
pr_set_child_subreaper = 36


def adopt_orphans():
    """From now on a server that turns itself into a daemon remains a child of ours."""
    libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def children():
    """The pids of our living children, adopted ones too."""
    path = f"/proc/self/task/{os.getpid()}/children"
    with open(path, encoding="ascii") as listing:
        return [int(pid) for pid in listing.read().split()]


def end_children(patience=5.0):
    """Asks every child to end, and ends the ones that do not listen."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience
        asked = set()
        while pids := children():
            for pid in set(pids) - asked:
                os.kill(pid, sign)
                asked.add(pid)
            # Every one that ends may leave us children of its own.
            if not Process(pids[0]).wait(deadline - time.monotonic()):
                break
            os.waitpid(pids[0], 0)


class Process:
    """Any process, child or not, until it ends."""

    def __init__(self, pid):
        self.pid = pid
        self.ended = None  # when we saw it end
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.pidfd = None
            self.ended = time.monotonic()

    def wait(self, seconds=0.0):
        """Whether it has ended, or ends within that time."""
        if self.ended is None and readable([self.pidfd], seconds):
            self.note_end()
        return self.ended is not None

    def note_end(self):
        self.ended = time.monotonic()
        os.close(self.pidfd)
        self.pidfd = None

    def signal(self, sign):
        if self.ended is None:
            signal.pidfd_send_signal(self.pidfd, sign)


class Server(Process):
    """A server of ours; what it says goes to a file."""

    def __init__(self, command, environment, output):
        # A session of its own: Ctrl-C is for us, and we decide who ends when.
        self.popen = subprocess.Popen(command, env=environment, start_new_session=True,
                                      stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        super().__init__(self.popen.pid)

    def failure(self):
        """How it ended, if it did so in any other way than a daemon's parent does."""
        if not self.wait():
            return None
        status = self.popen.wait()
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}" if status else None


class Log:
    """The library's log, line by line as it grows."""

    def __init__(self, path):
        self.file = open(path, "a+", encoding="utf-8", errors="replace")
        self.lines = []
        self.partial = ""
        self.inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.inotify < 0 or libc.inotify_add_watch(self.inotify, path.encode(), in_modify) < 0:
            raise OSError(ctypes.get_errno(), "inotify", path)

    def read(self):
        try:
            os.read(self.inotify, 65536)  # first the notice, then what it is about
        except BlockingIOError:
            pass
        *whole, self.partial = (self.partial + self.file.read()).split("\n")
        self.lines += whole


def readable(descriptors, seconds):
    """Waits until one can be read (a pidfd: the process has ended), and returns these."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(max(0, seconds) * 1000)}
