"""php-fpm: the master binds; children copy the listener's descriptor and sleep in accept, one connection each.

On a UNIX socket it connects to the path first, and refuses to start when somebody answers.
"""

from harness import fastcgi
from harness.in_flight import AtWork
from harness.server import Server

_configuration = """
[global]
pid = @DIR@/php-fpm.pid
error_log = @DIR@/php-fpm.errors
[www]
listen = LISTEN
listen.mode = 0666
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


def _php_fpm(title: str, listen: str, **rest) -> Server:
    return Server(
        title=title,
        packages=["php8.2-fpm"],
        version=["/usr/sbin/php-fpm8.2", "-v"],
        command=["/usr/sbin/php-fpm8.2", "--nodaemonize", "--no-php-ini", "--fpm-config", "@DIR@/php-fpm.conf"],
        connect=listen,
        send=fastcgi.escaped(_request("/")),
        expect="hello\\n",
        files={"php-fpm.conf": _configuration.replace("LISTEN", listen)},
        prepare=[["cp", "@PROGRAMS@/index.php", "@DIR@"], ["chmod", "a+w", "@DIR@"]],
        keeps_alive=False,
        pid_file="@DIR@/php-fpm.pid",
        **rest)


SERVERS = {
    "php-fpm": _php_fpm("php-fpm", "127.0.0.1:@PORT@",
                        in_flight=[AtWork(lambda gate: _request(f"/wait?{gate}"))]),
    "php-fpm-unix": _php_fpm("php-fpm on a UNIX socket", "@DIR@/php-fpm.sock",
                             environment={"CONTINUITY_HIDE": "@DIR@/php-fpm.sock"},
                             to_know="`CONTINUITY_HIDE` names its socket: it refuses to start where somebody answers"),
}
