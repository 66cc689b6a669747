"""Java's com.sun.net.httpserver: epoll, non-blocking; an IPv6 socket bound to ::ffff:127.0.0.1."""

from harness.in_flight import AtWork
from harness.server import Server

SERVER = Server(
    title="Java HttpServer",
    packages=["default-jdk-headless"],
    version=["javac", "-version"],
    prepare=[["javac", "-d", "@DIR@", "@PROGRAMS@/Pages.java"]],
    command=["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m", "-cp", "@DIR@", "Pages", "@PORT@"],
    url="http://127.0.0.1:@PORT@/",
    in_flight=[AtWork("GET /wait?@GATE@ HTTP/1.0\r\n\r\n")],
)
