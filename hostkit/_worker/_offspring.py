"""Let interpreters that the plugin starts by ``multiprocessing``, or its like, find installed packages.

They get the flags of this one, and with its ``-S`` a child of ``multiprocess`` couldn't even import that: a pool would start child after
child, for ever.
"""

from __future__ import annotations

import sys

from ._output import _ImportWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def let_see_packages() -> None:
    """Take ``-S`` off the flags that children get, once the plugin imports ``subprocess``."""
    if "subprocess" in sys.modules:
        _change(sys.modules["subprocess"])
    else:
        sys.meta_path.insert(0, _ImportWatch({"subprocess": _change}, None))


def _change(module: ModuleType, _: object = None) -> None:
    # Not a public name: where an interpreter doesn't have it, children get the flags that it gives them.
    flags: Any = getattr(module, "_args_from_interpreter_flags", None)
    if flags is not None:
        setattr(module, flags.__name__, lambda: [flag for flag in flags() if flag != "-S"])
