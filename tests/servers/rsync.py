"""rsync --daemon: poll and a *blocking* accept; a child for each connection."""

from harness.server import Server

SERVER = Server(
    title="rsync --daemon",
    packages=["rsync"],
    version=["/usr/bin/rsync", "--version"],
    command=["/usr/bin/rsync", "--daemon", "--no-detach", "--config=@DIR@/rsyncd.conf", "--address", "127.0.0.1",
             "--port", "@PORT@"],
    connect="127.0.0.1:@PORT@",
    send="@RSYNCD: 31.0\\n#list\\n",
    expect="@RSYNCD: EXIT\\n",
    # A name server that does not answer is a client that waits.
    files={"rsyncd.conf": "use chroot = no\nreverse lookup = no\nlog file = @DIR@/rsyncd.log\n[files]\npath = @DIR@\n"},
    keeps_alive=False,
    to_know="without `pid file`: it refuses to start where that exists",
)
