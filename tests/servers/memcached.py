"""memcached: leaves root *before* it binds; the main thread accepts, four others serve."""

from harness.server import Server

SERVER = Server(
    title="memcached",
    packages=["memcached"],
    version=["memcached", "-V"],
    command=["memcached", "-l", "127.0.0.1", "-p", "@PORT@", "-U", "0", "-u", "nobody", "-m", "16"],
    connect="127.0.0.1:@PORT@",
    send="get nothing\\r\\n",
    expect="END\\r\\n",
)
