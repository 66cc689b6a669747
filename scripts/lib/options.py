"""The command line of scripts/try."""

import argparse
import os
import socket
from urllib.parse import urlsplit


class Usage(Exception):
    """What is wrong with the command line."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Usage(message)


class Options(argparse.Namespace):
    """What was asked for, and where the server is to be found."""

    remark = ""  # on the times

    def use_url(self, url):
        parts = urlsplit(url)
        try:
            self.place = (parts.hostname, parts.port or 80)
        except ValueError:
            raise Usage(f"cannot read --url {url}") from None
        if parts.scheme != "http" or not parts.hostname:
            raise Usage(f"--url wants http://HOST:PORT/PATH, not {url}")
        self.url = url

    def use_connect(self, where):
        host, colon, port = where.rpartition(":")
        if "/" in where:
            self.place = self.connect = os.path.abspath(where)
        elif colon and port.isdigit() and int(port) < 65536:
            self.place = (host.strip("[]"), int(port))
        else:
            raise Usage(f"--connect wants HOST:PORT or a path with a slash, not {where}")

    def target(self):
        """What the load client is told."""
        if self.url:
            return ["--url", self.url]
        given = [("--send", self.send), ("--expect", self.expect)]
        return ["--connect", self.connect,
                *(word for name, text in given if text is not None for word in (name, text))]

    def connects(self):
        """Whether somebody accepts connections there."""
        try:
            if isinstance(self.place, str):
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.place)
            else:
                socket.create_connection(self.place, timeout=1).close()
        except OSError:
            return False
        return True


def natural(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return int(text)


def parse(arguments):
    ours, command = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        ours, command = arguments[:split], arguments[split + 1:]
    parser = Parser(add_help=False, allow_abbrev=False)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url")
    where.add_argument("--connect")
    parser.add_argument("--send")
    parser.add_argument("--expect")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--restarts", type=natural, default=10)
    parser.add_argument("--clients", type=natural, default=8)
    parser.add_argument("--built")
    options = parser.parse_args(ours, Options(command=command))

    if bool(command) != bool(options.url or options.connect):
        raise Usage("a COMMAND needs --url or --connect, and these need a COMMAND")
    if (options.send is not None or options.expect is not None) and not options.connect:
        raise Usage("--send and --expect go with --connect")
    if options.url:
        options.use_url(options.url)
    if options.connect:
        options.use_connect(options.connect)
    return options
