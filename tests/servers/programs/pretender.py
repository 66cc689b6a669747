"""A server that hands over by itself, or only pretends to: pretender.py PORT FAULT.

It answers each line with the same line, and logs its take-overs as the library
would. With a fault it does one thing wrong, which the trial has to notice.
"""

import array
import os
import select
import socket
import sys
import threading
import time

port, fault = int(sys.argv[1]), sys.argv[2]
meeting = os.path.join(os.environ["CONTINUITY_DIR"], "pretender.sock")
pid_file = "pretender.pid"
live = []


def serve(connection):
    with connection:
        for line in connection.makefile("rb"):
            connection.sendall(line[: len(line) // 2] if fault == "short" and is_successor else line)
            if fault == "short" and is_successor:
                return


def accept():
    connection, _ = listener.accept()
    if fault == "refuse" and is_successor:
        return connection.close()
    thread = threading.Thread(target=serve, args=(connection,), daemon=True)
    live.append(thread)
    thread.start()


peer = socket.socket(socket.AF_UNIX)
try:
    peer.connect(meeting)
    is_successor = True
except OSError:
    is_successor = False
if is_successor:
    started = time.monotonic()
    _, ancillary, _, _ = peer.recvmsg(1, socket.CMSG_SPACE(4))
    listener = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
    predecessor = int(peer.recv(100))
    os.unlink(meeting)
else:
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
waiting = socket.socket(socket.AF_UNIX)
waiting.bind(meeting)
waiting.listen()
with open(pid_file, "w") as file:
    file.write(f"{os.getpid()}\n")
if fault == "leave descriptors":
    # One more than the process before.
    kept = int(os.path.exists("kept") and open("kept").read() or 0) + 1
    with open("kept", "w") as file:
        file.write(str(kept))
    for number in range(1000, 1000 + kept):
        os.dup2(0, number)
if is_successor:
    peer.sendall(b"ready")
    peer.recv(1)
    if fault != "mute":
        with open(os.environ["CONTINUITY_LOG_FILE"], "a") as log:
            taken = f"in {(time.monotonic() - started) * 1000:.3f} ms"
            log.write(f"continuity[{os.getpid()}]: took over 127.0.0.1:{port} from pid {predecessor} {taken}\n")

while True:
    readable, _, _ = select.select([listener, waiting], [], [])
    if waiting in readable:
        break
    accept()
successor, _ = waiting.accept()
socket.send_fds(successor, [b"x"], [listener.fileno()])
successor.sendall(str(os.getpid()).encode())
successor.recv(5)
successor.sendall(b"r")
if fault == "leave early":
    os._exit(0)
listener.settimeout(0.05)
until = time.monotonic() + (0.5 if fault == "accept on" else 0)
while time.monotonic() < until:
    try:
        accept()
    except TimeoutError:
        pass
for thread in live:
    thread.join()
if fault == "take the pid file":
    os.unlink(pid_file)
if fault == "stay":
    threading.Event().wait()
