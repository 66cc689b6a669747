"""mosquitto: one thread, epoll; leaves root before it binds. What is subscribed and retained ends with the process."""

from harness.server import Server

SERVER = Server(
    title="mosquitto",
    packages=["mosquitto"],
    version=["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "mosquitto"],
    command=["/usr/sbin/mosquitto", "-c", "@DIR@/mosquitto.conf"],
    connect="127.0.0.1:@PORT@",
    # CONNECT as nobody in particular, and PINGREQ; PINGRESP.
    send="\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x3c\\x00\\x00\\xc0\\x00",
    expect="\\xd0\\x00",
    files={"mosquitto.conf": "listener @PORT@ 127.0.0.1\nallow_anonymous true\npersistence false\nuser nobody\n"},
    keeps_alive=False,
    to_know="subscriptions and retained messages end with the old process",
)
