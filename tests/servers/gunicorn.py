"""gunicorn: the arbiter binds, sync workers wait in select and serve one connection each.

On a UNIX socket a second start natively steals the path, and whoever ends
unlinks it.
"""

import signal

from harness.in_flight import AtWork
from harness.server import Server


def _gunicorn(title: str, bind: str, *options: str, **rest) -> Server:
    return Server(
        title=title,
        packages=["gunicorn"],
        version=["/usr/bin/gunicorn", "--version"],
        # A half-sent request occupies a worker, which gunicorn kills after --timeout (30 s), restart or not; one
        # is held through two restarts.
        command=["/usr/bin/gunicorn", "--bind", bind, "--workers", "8", "--timeout", "300", "--pythonpath",
                 "@PROGRAMS@", *options, "wsgi"],
        keeps_alive=False,
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
        **rest)


SERVERS = {
    "gunicorn": _gunicorn("gunicorn, sync", "127.0.0.1:@PORT@", url="http://127.0.0.1:@PORT@/",
                          in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")]),
    # Starts new workers, which belong to the generation that has handed over. Of those that boot when it is told to
    # end some do not hear it: it kills them when its time is over.
    "gunicorn-reloaded": _gunicorn("gunicorn, told to reload when retired", "127.0.0.1:@PORT@",
                                   "--graceful-timeout", "5",
                                   url="http://127.0.0.1:@PORT@/", reload_signal=signal.SIGHUP,
                                   reload_says="Handling signal: hup"),
    "gunicorn-unix": _gunicorn("gunicorn on a UNIX socket", "unix:@DIR@/gunicorn.sock",
                               connect="@DIR@/gunicorn.sock", url_path="/"),
}
