"""A plugin whose every call has a number: it notes what it began, and answers with the number. Installed three times by
``tests/test_exactly_once.py``, once for each kind of ``execute``."""

import asyncio
import os
import time


class Numbered:
    def __init__(self, config: dict):
        self.host = config["host"]
        self.journal = config["journal"]

    def begin(self, number):
        """Note that a call has begun. One short line, appended in one write, is never torn."""
        journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(journal, b"%d\n" % number)
        finally:
            os.close(journal)

    def end(self, request):
        if request["how"] == "fail":
            raise ValueError(request["number"])
        if request["how"] == "exit" and os.getpid() != self.host:
            os._exit(7)
        return {"number": request["number"], "load": "x" * request["size"]}


class Plain(Numbered):
    def execute(self, ctx, request):
        self.begin(request["number"])
        end = time.monotonic() + request["seconds"]
        while time.monotonic() < end and not (ctx.cancelled and request["how"] != "stubborn"):
            time.sleep(0.002)
        return self.end(request)


class Async(Numbered):
    async def execute(self, ctx, request):
        self.begin(request["number"])
        end = time.monotonic() + request["seconds"]
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                if request["how"] != "stubborn":
                    raise
        return self.end(request)


class Stream(Numbered):
    def execute(self, ctx, request):
        self.begin(request["number"])
        for index in range(5):
            end = time.monotonic() + request["seconds"] / 5
            while time.monotonic() < end and not (ctx.cancelled and request["how"] != "stubborn"):
                time.sleep(0.002)
            if index == 3:
                yield {**self.end(request), "index": index}
            else:
                yield {"number": request["number"], "load": "x" * request["size"], "index": index}
