"""python3 -m http.server as a daemon has it: locked_pid_file.py PORT PID_FILE.

It ends when its pid file is locked, as by many programs that use lockfile,
pidfile_open and the like, before it binds.
"""

import fcntl
import http.server
import os
import sys

pid_file = open(sys.argv[2], "a+")
try:
    fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(f"{sys.argv[2]} is locked: it runs already")
pid_file.truncate(0)
print(os.getpid(), file=pid_file, flush=True)


class Pages(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments):
        super().__init__(*arguments, directory="site")

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
