"""php -S: a single thread, select; a script at work keeps it from everything else.

Whoever is accepted but not served then waits for the script; new connections
wait for the successor, which accepts them.
"""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="php -S",
    packages=["php-cli"],
    version=["php", "--version"],
    command=["php", "-S", "127.0.0.1:@PORT@", "@PROGRAMS@/index.php"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
    keeps_alive=False,
)
