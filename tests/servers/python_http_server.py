"""python3 -m http.server: poll and a *blocking* accept; a thread per connection; a backlog of 5."""

from harness.in_flight import Download
from harness.server import Server

SERVER = Server(
    title="python3 -m http.server",
    packages=["python3"],
    version=["/usr/bin/python3", "--version"],
    # HTTP/1.0, its default, has no connections to keep.
    command=["/usr/bin/python3", "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", "127.0.0.1",
             "--directory", "@DIR@/site", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    files={"site/index.html": "hello\n"},
    in_flight=[Download("/large", "site/large")],
)
