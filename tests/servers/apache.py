"""apache2: the parent binds and its children accept, by epoll (event) or asleep in accept (prefork).

It refuses to start, with exit status 0, while its PidFile names a living
process; and at its end prefork sends SIGTERM to its whole process group.
"""

from harness.in_flight import Download
from harness.server import Server

_configuration = """
ServerRoot @DIR@
ServerName localhost
DefaultRuntimeDir @DIR@
PidFile @DIR@/apache.pid
LoadModule mpm_MPM_module /usr/lib/apache2/modules/mod_mpm_MPM.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
Listen 127.0.0.1:@PORT@
User www-data
Group www-data
ErrorLog @DIR@/apache.errors
KeepAliveTimeout 60
MaxKeepAliveRequests 0
DocumentRoot @DIR@/site
<Directory @DIR@/site>
  Require all granted
</Directory>
"""


def _apache(mpm: str, processes: str) -> Server:
    return Server(
        title=f"apache2, {mpm}",
        packages=["apache2-bin"],
        version=["/usr/sbin/apache2", "-v"],
        command=["/usr/sbin/apache2", "-f", "@DIR@/apache.conf", "-DFOREGROUND"],
        url="http://127.0.0.1:@PORT@/",
        files={"apache.conf": _configuration.replace("MPM", mpm) + processes, "site/index.html": "hello\n"},
        in_flight=[Download("/large", "site/large")],
        environment={"CONTINUITY_HIDE": "@DIR@/apache.pid"},
        pid_file="@DIR@/apache.pid",
        to_know="`CONTINUITY_HIDE` names its PidFile: it refuses to start where that names a living process")


SERVERS = {
    "apache-event": _apache("event", "StartServers 2\n"),
    "apache-prefork": _apache("prefork", "StartServers 12\nMinSpareServers 4\nMaxRequestWorkers 24\n"),
}
