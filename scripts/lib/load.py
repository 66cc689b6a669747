"""The clients: continuity-load, which opens a new connection for every request and
says what became of each."""

import json
import os
import subprocess
import time

from processes import readable

outcomes = ("refused", "reset", "closed", "short", "timeout", "other")
patience = 20.0  # more than a request may take


class Load:
    def __init__(self, program, target, clients):
        self.process = subprocess.Popen([program, *target, "--clients", str(clients)],
                                        start_new_session=True, bufsize=0,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.unread = b""

    def stats(self):
        return self._ask(b"stats\n")

    def quit(self):
        """Ends the load once the requests in flight are answered; the final figures."""
        return self._ask(b"quit\n")

    def _ask(self, command):
        self.process.stdin.write(command)
        deadline = time.monotonic() + patience
        while b"\n" not in self.unread:
            output = self.process.stdout.fileno()
            if not readable([output], deadline - time.monotonic()):
                raise RuntimeError("the load client does not answer")
            block = os.read(output, 65536)
            if not block:
                raise RuntimeError("the load client has ended")
            self.unread += block
        line, _, self.unread = self.unread.partition(b"\n")
        return json.loads(line)


def describe_losses(stats):
    """As in "12 refused, 3 reset"."""
    return ", ".join(f"{stats[name]} {name}" for name in outcomes if stats.get(name))
