"""``tests/test_exactly_once.py``, for long: ``SOAK_ROUNDS`` (1000) says how many machines are run."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "1000"))

SHORT = runpy.run_path(str(Path(__file__).parent.parent / "test_exactly_once.py"))
traffic = SHORT["traffic"]


@pytest.mark.timeout(4 * 3600)
def test_every_call_has_exactly_one_outcome_whatever_happens_around_it_for_long(traffic):
    traffic(ROUNDS, 60)
