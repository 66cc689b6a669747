"""stunnel: poll, a thread per connection. One process with both ends of a tunnel, hence with two listeners."""

from harness.server import Server

_configuration = """
foreground = yes
pid =
syslog = no
[plain]
client = yes
accept = 127.0.0.1:@PORT@
connect = 127.0.0.1:@PORT2@
[encrypted]
accept = 127.0.0.1:@PORT2@
cert = @DIR@/certificate.pem
key = @DIR@/key.pem
exec = /bin/cat
execArgs = cat
"""

SERVER = Server(
    title="stunnel",
    packages=["stunnel4", "openssl"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "stunnel4"],
    command=["/usr/bin/stunnel4", "@DIR@/stunnel.conf"],
    connect="127.0.0.1:@PORT@",
    send="hello\\r\\n",
    expect="hello\\r\\n",
    files={"stunnel.conf": _configuration},
    prepare=[["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
              "-keyout", "@DIR@/key.pem", "-out", "@DIR@/certificate.pem"]],
)
