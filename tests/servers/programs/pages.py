"""Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists."""

import asyncio
import sys
from pathlib import Path

import tornado.web


class Hello(tornado.web.RequestHandler):
    def get(self):
        self.write("hello\n")


class Wait(tornado.web.RequestHandler):
    async def get(self):
        gate = Path(self.request.query)
        gate.with_name(gate.name + ".begun").touch()
        while not gate.exists():
            await asyncio.sleep(0.005)
        self.write("waited\n")


async def main():
    pages = tornado.web.Application([("/", Hello), ("/wait", Wait)])
    pages.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
