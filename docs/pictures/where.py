"""A plugin that says in which process it runs."""

from __future__ import annotations

import os
import time
from typing import Any


class Where:
    """Takes as long as it is asked to, and answers with its process' id."""

    def execute(self, _ctx: Any, request: dict[str, float]) -> dict[str, int]:  # Any: left alone
        if seconds := request.get("seconds"):
            time.sleep(seconds)
        return {"pid": os.getpid()}
