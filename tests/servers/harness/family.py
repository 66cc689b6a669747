"""Runs a command and stays until it and everything that came of it has ended, daemons included.

    family.py COMMAND [ARGUMENT...]

So one process stands for one generation of a server: whatever belongs to the
generation descends from it, since the kernel makes it the parent of those that
have lost theirs. It ends as the command did.
"""

import ctypes
import os
import resource
import signal
import sys

set_child_subreaper = 36
ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)

command = os.fork()
if command == 0:
    os.setsid()  # a server that signals its process group reaches nobody else
    os.execvp(sys.argv[1], sys.argv[1:])

status = 0
while True:
    try:
        pid, how = os.wait()
    except ChildProcessError:
        break
    if pid == command:
        status = how
if os.WIFSIGNALED(status):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.WTERMSIG(status) != signal.SIGKILL:
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
