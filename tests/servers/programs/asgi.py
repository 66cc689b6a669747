"""Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists."""

import asyncio
from pathlib import Path


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = b"hello\n"
    if scope["path"] == "/wait":
        gate = Path(scope["query_string"].decode())
        gate.with_name(gate.name + ".begun").touch()
        while not gate.exists():
            await asyncio.sleep(0.005)
        body = b"waited\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
