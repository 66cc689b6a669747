"""FastCGI requests as a web server makes them, for servers that speak nothing else."""

from __future__ import annotations

import struct

_begin, _parameters = 1, 4
_responder = 1


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), 0) + content


def request(**parameters: str) -> bytes:
    """A GET, after which the connection is closed.

    Without the empty input that ends it: php-fpm does not wait for that, and a request of which the last bytes are
    missing has to be one that it cannot answer.
    """
    encoded = b"".join(bytes([len(name), len(value)]) + name.encode() + value.encode()
                       for name, value in parameters.items())
    return (_record(_begin, struct.pack(">HB5x", _responder, 0)) + _record(_parameters, encoded)
            + _record(_parameters, b""))


def escaped(data: bytes) -> str:
    """As the load client wants it."""
    return "".join(f"\\x{byte:02x}" for byte in data)
