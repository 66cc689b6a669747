"""socat, fork: select and a *blocking* accept; a child for each connection.

UNIX-LISTEN refuses to start when there is something at its path.
"""

from harness.server import Server


def _socat(title: str, listen: str, **rest) -> Server:
    return Server(
        title=title,
        packages=["socat"],
        version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "socat"],
        command=["/usr/bin/socat", listen, "EXEC:cat"],
        send="hello\\r\\n",
        expect="hello\\r\\n",
        **rest)


SERVERS = {
    "socat": _socat("socat, fork", "TCP-LISTEN:@PORT@,bind=127.0.0.1,fork,reuseaddr,backlog=64",
                    connect="127.0.0.1:@PORT@"),
    "socat-unix": _socat("socat, fork, on a UNIX socket", "UNIX-LISTEN:@DIR@/socat.sock,fork,backlog=64",
                         connect="@DIR@/socat.sock",
                         environment={"CONTINUITY_HIDE": "@DIR@/socat.sock"},
                         to_know="`CONTINUITY_HIDE` names its socket: it refuses to start where there is one"),
}
