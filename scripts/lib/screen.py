"""One line a restart: redrawn while things happen on a terminal, written once elsewhere."""

import sys


class Screen:
    def __init__(self, stream=sys.stdout):
        # Locales without a µ exist.
        stream.reconfigure(errors="replace", line_buffering=True)
        self.stream = stream
        self.live = stream.isatty()
        self.drawn = False

    def draw(self, line):
        """Shows how things stand; the next line takes its place."""
        if self.live:
            self.stream.write(f"\r\x1b[K{line}")
            self.stream.flush()
            self.drawn = True

    def keep(self):
        """What was drawn last stays."""
        if self.drawn:
            self.stream.write("\n")
        self.drawn = False

    def write(self, line=""):
        """Shows what is final."""
        self.stream.write(f"\r\x1b[K{line}\n" if self.drawn else f"{line}\n")
        self.drawn = False
