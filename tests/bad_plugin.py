"""The bad plugin of ``hostkit.testing`` with some words more, for tests; ``tests/conftest.py`` installs it under the name "bad"."""

import os
import signal  # noqa: F401 - for what tests have evaluated, as are the next ones
import sys
import threading  # noqa: F401
import time  # noqa: F401

from hostkit.testing.badplugin import BadPlugin
from hostkit.testing.badplugin._speaking import channels, control  # noqa: F401
from hostkit.testing.badplugin._table import found


class P(BadPlugin):
    """``{"op": ...}`` names a method here or a fault there; ``begun`` is a file that is made when the call begins."""

    def execute(self, ctx, request):
        arguments = dict(request)
        begun = arguments.pop("begun", None)
        if begun is not None:
            with open(begun, "w"):
                pass
        op = arguments.pop("op")
        mine = getattr(self, op, None)
        return found(op.strip("_")).do(ctx, **arguments) if mine is None else mine(ctx, **arguments)

    def fine(self, ctx):
        return "fine"

    def pid(self, ctx):
        return os.getpid()

    def remaining(self, ctx):
        return ctx.remaining()

    def print_(self, ctx, text, stream):
        print(text, file=getattr(sys, stream))
        return "printed"

    def answer(self, ctx, what):
        return eval(what)
