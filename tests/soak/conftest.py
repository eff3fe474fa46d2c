"""Soak tests stand in files named ``soak_...``, which pytest collects only when it is sent here: ``pytest tests/soak``."""

from __future__ import annotations

import pytest


def pytest_collect_file(file_path, parent):
    asked = any("soak" in str(argument) for argument in parent.config.invocation_params.args)
    if asked and file_path.name.startswith("soak_") and file_path.suffix == ".py":
        return pytest.Module.from_parent(parent, path=file_path)
    return None
