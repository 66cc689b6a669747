"""uwsgi: a master binds, workers accept by epoll, without keep-alive; SIGTERM drops what is in hand."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="uwsgi, master and workers",
    packages=["uwsgi-core", "uwsgi-plugin-python3"],
    version=["/usr/bin/uwsgi-core", "--version"],
    command=["/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", "127.0.0.1:@PORT@",
             "--wsgi-file", "@PROGRAMS@/wsgi.py", "--master", "--processes", "2", "--threads", "8",
             "--socket-timeout", "60", "--die-on-term"],
    url="http://127.0.0.1:@PORT@/",
    environment={"PYTHONDONTWRITEBYTECODE": "1"},
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
    keeps_alive=False,
    to_know="with --die-on-term: else SIGTERM reloads it",
)
