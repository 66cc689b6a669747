"""What scripts/try does: builds, finds a server to try, tries it, and cleans up."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from options import Usage, parse
from processes import adopt_orphans, end_children
from run import Failure, Run
from screen import Screen

source = Path(__file__).resolve().parents[2]


def build(options):
    """Returns the directory with the library and the load client in it."""
    if options.built:
        return Path(options.built).resolve()
    subprocess.run([source / "scripts/dependencies", "build"], check=True)
    screen = Screen()
    (screen.draw if screen.live else screen.write)("building build/release ...")
    started = time.monotonic()
    for step in (["cmake", "--preset", "release"],
                 ["cmake", "--build", "--preset", "release",
                  "--target", "continuity_preload", "continuity-load"]):
        run_quietly(step, screen)
    screen.write(f"built build/release in {time.monotonic() - started:.0f} s")
    return source / "build/release"


def run_quietly(step, screen):
    """What the step says is seen only if it fails; on a terminal, how far it has come."""
    lines = []
    with subprocess.Popen(step, cwd=source, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            lines.append(line)
            if progress := re.match(r"\[\d+/\d+\]", line):
                screen.draw(f"building build/release ... {progress[0]}")
    if process.returncode != 0:
        screen.keep()
        sys.stdout.writelines(lines)
        raise Failure(f"{' '.join(step)} ended with status {process.returncode}")


def serve_files(options, directory):
    """The server that is tried when none is named: it is on every Debian with Python."""
    files = directory / "files"
    files.mkdir()
    (files / "index.html").write_text("Continuity\n" * 100, encoding="ascii")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options.command = ["/usr/bin/python3", "-m", "http.server", str(port),
                       "--bind", "127.0.0.1", "--directory", str(files)]
    options.use_url(f"http://127.0.0.1:{port}/")
    options.remark = " (http.server queues no more than 5: who finds it full waits 1 s, restart or not)"


def show_evidence(directory):
    for name, title in (("output", "the server said"), ("continuity.log", "Continuity said")):
        file = directory / name
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        if lines:
            print(f"--- {title}, at the end:", *lines[-20:], sep="\n", file=sys.stderr)
    print(f"--- all of it is in {directory}", file=sys.stderr)


def new_directory():
    directory = Path(tempfile.mkdtemp(prefix="continuity-try."))
    directory.chmod(0o711)  # a server that gives up root must still get through
    return directory


def main(arguments):
    try:
        options = parse(arguments)
    except Usage as wrong:
        print(f"scripts/try: {wrong}; see scripts/try --help", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    adopt_orphans()
    directory = None
    expected = False
    try:
        built = build(options)
        directory = new_directory()
        if not options.command:
            serve_files(options, directory)
        status = Run(options, built, directory).all_restarts()
        expected = status == 0 or options.without
    except KeyboardInterrupt:
        print("\nscripts/try: interrupted", file=sys.stderr)
        status, expected = 130, True
    except (Failure, RuntimeError, OSError, subprocess.CalledProcessError) as failure:
        print(f"scripts/try: {failure}", file=sys.stderr)
        status = 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C was heard the first time
        end_children()
    if directory and expected:
        shutil.rmtree(directory)
    elif directory:
        show_evidence(directory)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
