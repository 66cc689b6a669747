#!/usr/bin/env python3
"""A server in Python that asks, through ctypes and the shared library alone.

    asking.py LIBRARY ADDRESS

Every line is answered by "pid=PID"; ends when it has been restarted.
"""
import ctypes
import os
import select
import signal
import socket
import sys


class Outcome(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("state", ctypes.c_int), ("successor", ctypes.c_int),
                ("start_ns", ctypes.c_int64), ("switch_ns", ctypes.c_int64),
                ("lived_ns", ctypes.c_int64), ("changes", ctypes.c_uint64),
                ("predecessor", ctypes.c_int), ("takeover_ns", ctypes.c_int64)]


STATES = ["serving", "starting", "taken over", "completed", "rolled back", "failed"]


def load(path):
    library = ctypes.CDLL(path, use_errno=True)
    library.continuity_open.restype = ctypes.c_void_p
    library.continuity_open.argtypes = [ctypes.c_void_p]
    library.continuity_listen.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    for name in "ready", "has_completed", "event_descriptor":
        getattr(library, "continuity_" + name).argtypes = [ctypes.c_void_p]
    library.continuity_get_outcome.argtypes = [ctypes.c_void_p, ctypes.POINTER(Outcome)]
    library.continuity_error.restype = ctypes.c_char_p
    return library


def say(line):
    os.write(1, (line + "\n").encode())


class Server:
    def __init__(self, library, address):
        self.library = library
        self.upgrader = library.continuity_open(None)
        number = library.continuity_listen(self.upgrader, address.encode(), 64)
        if number < 0:
            sys.exit(library.continuity_error().decode())
        self.listener = socket.socket(fileno=number)
        self.event = library.continuity_event_descriptor(self.upgrader)
        self.clients = {}

    def run(self):
        say(f"listening pid={os.getpid()}")
        if self.library.continuity_ready(self.upgrader) != 0:
            sys.exit(self.library.continuity_error().decode())
        self.listener.setblocking(False)
        while not self.library.continuity_has_completed(self.upgrader) or self.clients:
            readable, _, _ = select.select([self.event, self.listener, *self.clients], [], [])
            for one in readable:
                if one is self.listener:
                    self.welcome()
                elif one == self.event:
                    self.tell()
                else:
                    self.answer(one)

    def welcome(self):
        try:
            client, _ = self.listener.accept()
        except OSError:  # EAGAIN: the successor has it; EINVAL: for good
            return
        client.setblocking(True)
        self.clients[client] = True

    def tell(self):
        outcome = Outcome(size=ctypes.sizeof(Outcome))
        self.library.continuity_get_outcome(self.upgrader, ctypes.byref(outcome))
        say(f"{STATES[outcome.state]} successor={outcome.successor}")

    def answer(self, client):
        data = client.recv(4096)
        if not data:
            del self.clients[client]
            client.close()
            return
        client.sendall(f"pid={os.getpid()}\n".encode() * data.count(b"\n"))


signal.alarm(240)  # outlives no test
Server(load(sys.argv[1]), sys.argv[2]).run()
