"""WEBrick: one process, select and accept_nonblock, a thread per connection."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="WEBrick",
    packages=["ruby-webrick"],
    version=["/usr/bin/ruby", "-e", "require 'webrick'; puts WEBrick::VERSION"],
    command=["/usr/bin/ruby", "@PROGRAMS@/webrick.rb", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
