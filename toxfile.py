"""Let tox see the CPythons that pyenv keeps: its shims answer for the selected version only."""

import os
from pathlib import Path

_ROOT = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
_BINS = [str(place) for place in sorted(_ROOT.glob("versions/3.*/bin"))]
os.environ["PATH"] = os.pathsep.join([*_BINS[::-1], os.environ.get("PATH", "")]) if _BINS else os.environ.get("PATH", "")
