"""vsftpd: asleep in accept; for each connection a child in namespaces of its own, which outlives its parent."""

from harness.server import Server

_configuration = """
listen=YES
listen_ipv6=NO
listen_address=127.0.0.1
listen_port=@PORT@
background=NO
anonymous_enable=YES
local_enable=NO
anon_root=@DIR@/files
secure_chroot_dir=@DIR@/empty
ftp_username=daemon
nopriv_user=nobody
xferlog_enable=NO
"""

SERVER = Server(
    title="vsftpd",
    packages=["vsftpd"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "vsftpd"],
    command=["/usr/sbin/vsftpd", "@DIR@/vsftpd.conf"],
    connect="127.0.0.1:@PORT@",
    send="USER anonymous\\r\\nPASS me@\\r\\nPWD\\r\\n",
    expect="257 \"/\" is the current directory\\r\\n",
    files={"vsftpd.conf": _configuration, "files/hello": "hello\n"},
    prepare=[["mkdir", "@DIR@/empty"]],
)
