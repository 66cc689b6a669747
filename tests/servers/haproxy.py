"""haproxy: threads with an epoll each; SO_REUSEPORT, so that a second start meets no EADDRINUSE natively.

As master and worker the master binds, forks the worker, and executes itself.
"""

from harness.server import Server

_configuration = """
global
    nbthread 2
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend hello
    bind 127.0.0.1:@PORT@ OPTIONS
    http-request return status 200 content-type text/plain string "hello\\n"
"""


def _haproxy(title: str, options: list[str]) -> Server:
    return Server(
        title=title,
        packages=["haproxy"],
        version=["/usr/sbin/haproxy", "-v"],
        command=["/usr/sbin/haproxy", *options, "-db", "-f", "@DIR@/haproxy.cfg"],
        url="http://127.0.0.1:@PORT@/",
        files={"haproxy.cfg": _configuration.replace("OPTIONS", "")})


SERVERS = {
    "haproxy": _haproxy("haproxy", []),
    "haproxy-master-worker": _haproxy("haproxy, master and worker", ["-W"]),
}
