"""A Java ServerSocket: the main thread sleeps in a blocking accept, no poller, a thread per connection."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="Java ServerSocket",
    packages=["default-jdk-headless"],
    version=["javac", "-version"],
    prepare=[["javac", "-d", "@DIR@", "@PROGRAMS@/AcceptLoop.java"]],
    command=["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m", "-cp", "@DIR@", "AcceptLoop", "@PORT@"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\n",
    in_flight=[AtWork("wait @GATE@\r\n")],
)
