"""The trivial plugin with which ``hostkit doctor`` tries whether a worker can be started. Standard library only."""

from __future__ import annotations


class Probe:
    """Answers with what it was asked."""

    def execute(self, ctx: object, request: object) -> object:
        """Return the request."""
        del ctx
        return request
