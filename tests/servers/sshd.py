"""sshd: ppoll; executes itself for each connection, in a child that a seccomp filter confines before the login.

At its start it closes all descriptors that it does not know.
"""

import signal

from harness.server import Server

_configuration = """
ListenAddress 127.0.0.1
Port @PORT@
HostKey @DIR@/host_key
PidFile @DIR@/sshd.pid
UsePAM no
StrictModes no
MaxStartups 100
LoginGraceTime 60
"""



def _sshd(title: str, **rest) -> Server:
    return Server(
        title=title,
        packages=["openssh-server", "openssh-client"],
        version=["ssh", "-V"],
        command=["/usr/sbin/sshd", "-D", "-e", "-f", "@DIR@/sshd_config"],
        connect="127.0.0.1:@PORT@",
        # The confined child offers its ciphers.
        send="SSH-2.0-trial\\r\\n",
        expect="curve25519-sha256",
        files={"sshd_config": _configuration},
        prepare=[["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "@DIR@/host_key"], ["mkdir", "-p", "/run/sshd"]],
        keeps_alive=False,
        pid_file="@DIR@/sshd.pid",
        **rest)


SERVERS = {
    "sshd": _sshd("sshd"),
    # Closes its listeners, executes itself, and binds again.
    "sshd-reloaded": _sshd("sshd, told to reload when retired", reload_signal=signal.SIGHUP,
                           reload_says="Received SIGHUP; restarting"),
}
