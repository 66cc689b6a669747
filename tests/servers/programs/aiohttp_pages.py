"""Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists."""

import asyncio
import sys
from pathlib import Path

from aiohttp import web


async def hello(request):
    return web.Response(text="hello\n")


async def wait(request):
    gate = Path(request.query_string)
    gate.with_name(gate.name + ".begun").touch()
    while not gate.exists():
        await asyncio.sleep(0.005)
    return web.Response(text="waited\n")


pages = web.Application()
pages.add_routes([web.get("/", hello), web.get("/wait", wait)])
web.run_app(pages, host="127.0.0.1", port=int(sys.argv[1]), keepalive_timeout=60, access_log=None)
