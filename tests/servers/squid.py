"""squid -N: one process, epoll; changes to and fro between root and its user.

After SIGTERM it serves what is in hand for shutdown_lifetime. What it is asked
for here are its own icons, for want of a server behind it.
"""

from harness.server import Server

_configuration = """
http_port 127.0.0.1:@PORT@ accel defaultsite=127.0.0.1
http_access allow all
cache deny all
cache_mem 8 MB
access_log none
cache_log @DIR@/run/cache.log
coredump_dir @DIR@/run
pid_filename none
pinger_enable off
shutdown_lifetime 1 second
max_filedescriptors 1024
visible_hostname localhost
"""

SERVER = Server(
    title="squid -N",
    packages=["squid"],
    version=["/usr/sbin/squid", "-v"],
    command=["/usr/sbin/squid", "-N", "-f", "@DIR@/squid.conf"],
    url="http://127.0.0.1:@PORT@/squid-internal-static/icons/SN.png",
    files={"squid.conf": _configuration, "run/cache.log": ""},
    prepare=[["chmod", "-R", "a+rwX", "@DIR@/run"]],
    to_know="needs `pid_filename none`")
