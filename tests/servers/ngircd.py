"""ngircd: one process, epoll; leaves root before it binds. Who is connected to the old process talks there only."""

from harness.server import Server

_configuration = """
[Global]
Name = irc.example.net
Info = hello
Listen = 127.0.0.1
Ports = @PORT@
ServerUID = nobody
ServerGID = nogroup
[Limits]
MaxConnectionsIP = 0
[Options]
DNS = no
Ident = no
PAM = no
"""

SERVER = Server(
    title="ngircd",
    packages=["ngircd"],
    version=["/usr/sbin/ngircd", "--version"],
    command=["/usr/sbin/ngircd", "--nodaemon", "--config", "@DIR@/ngircd.conf"],
    connect="127.0.0.1:@PORT@",
    send="CAP LS\\r\\n",
    expect=" LS :multi-prefix\\r\\n",
    files={"ngircd.conf": _configuration},
    to_know="clients of the old and of the new process do not see each other",
)
