"""php-fpm: the master binds; children copy the listener's descriptor and sleep in accept, one connection each."""

from harness import fastcgi
from harness.in_flight import AtWork
from harness.server import Server

_configuration = """
[global]
pid = @DIR@/php-fpm.pid
error_log = @DIR@/php-fpm.errors
[www]
listen = 127.0.0.1:@PORT@
user = www-data
group = www-data
chdir = @DIR@
pm = static
; A half-sent request occupies a child.
pm.max_children = 10
"""


def _request(uri: str) -> bytes:
    return fastcgi.request(REQUEST_METHOD="GET", SCRIPT_FILENAME="index.php", SCRIPT_NAME="/index.php",
                           REQUEST_URI=uri)


SERVER = Server(
    title="php-fpm",
    packages=["php8.2-fpm"],
    version=["/usr/sbin/php-fpm8.2", "-v"],
    command=["/usr/sbin/php-fpm8.2", "--nodaemonize", "--no-php-ini", "--fpm-config", "@DIR@/php-fpm.conf"],
    connect="127.0.0.1:@PORT@",
    send=fastcgi.escaped(_request("/")),
    expect="hello\\n",
    files={"php-fpm.conf": _configuration},
    prepare=[["cp", "@PROGRAMS@/index.php", "@DIR@"], ["chmod", "a+w", "@DIR@"]],
    in_flight=[AtWork(lambda gate: _request(f"/wait?{gate}"))],
    keeps_alive=False,
    pid_file="@DIR@/php-fpm.pid",
    to_know="on a UNIX socket it refuses a second start",
)
