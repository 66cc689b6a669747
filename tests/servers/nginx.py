"""nginx: a master and two workers, which accept by epoll with EPOLLEXCLUSIVE; or one process; or a daemon.

It binds and listens even for `nginx -t`. It empties its pid file when it
starts, and removes that and its UNIX path when it ends. As a daemon, the
process that has bound leaves at once.
"""

from dataclasses import replace

from harness.in_flight import Download
from harness.server import Server

_configuration = """
user www-data;
worker_processes 2;
pid @DIR@/nginx.pid;
error_log @DIR@/nginx.errors;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path @DIR@/body;
  proxy_temp_path @DIR@/proxy;
  fastcgi_temp_path @DIR@/fastcgi;
  uwsgi_temp_path @DIR@/uwsgi;
  scgi_temp_path @DIR@/scgi;
  keepalive_timeout 60s;
  server {
    listen LISTEN;
    root @DIR@/site;
  }
}
"""


def _nginx(title: str, main: str, listen: str, **rest) -> Server:
    return Server(
        title=title,
        packages=["nginx"],
        version=["/usr/sbin/nginx", "-v"],
        command=["/usr/sbin/nginx", "-e", "@DIR@/nginx.errors", "-c", "@DIR@/nginx.conf", "-g", main],
        files={"nginx.conf": _configuration.replace("LISTEN", listen), "site/index.html": "hello\n"},
        pid_file="@DIR@/nginx.pid",
        **rest)


# One more generation, another number of workers, each with a socket of its own.
_workers = [4, 2, 4, 1]


def _reuseport() -> Server:
    server = _nginx("nginx, a socket for each of 4, 2, 4, 1 ... workers (`reuseport`)", "daemon off;",
                    **{**_tcp, "listen": "127.0.0.1:@PORT@ reuseport"})
    conf = server.files["nginx.conf"]
    files = {f"nginx-{n}.conf": conf.replace("worker_processes 2", f"worker_processes {_workers[(n - 1) % 4]}")
             for n in range(1, 102)}
    return replace(server, files={**server.files, **files},
                   command=[word.replace("nginx.conf", "nginx-@GENERATION@.conf") for word in server.command])


_tcp = {"listen": "127.0.0.1:@PORT@", "url": "http://127.0.0.1:@PORT@/",
        "in_flight": [Download("/large", "site/large")]}

SERVERS = {
    "nginx": _nginx("nginx", "daemon off;", **_tcp),
    "nginx-daemon": _nginx("nginx, a daemon", "daemon on;", **_tcp),
    "nginx-one-process": _nginx("nginx, one process", "daemon off; master_process off;", **_tcp),
    "nginx-reuseport": _reuseport(),
    "nginx-unix": _nginx("nginx on a UNIX socket", "daemon off;", listen="unix:@DIR@/nginx.sock",
                         connect="@DIR@/nginx.sock", url_path="/"),
}
