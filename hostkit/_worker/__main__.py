"""Where a worker begins: ``python -I -S .../hostkit/_worker/__main__.py FD``, FD being the control socket.

With ``template FD`` it is the process that workers are forked from; each of them goes on from here like any other.

It loads the host's own hostkit by path, so that host and worker never differ in protocol and a virtual environment without
hostkit can run a worker too, and hands over to ``_boot``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _load_hostkit() -> None:
    from importlib.machinery import SourceFileLoader

    # importlib's own pieces, which are here already: importlib.util costs milliseconds.
    importer: Any = __import__("_frozen_importlib")
    here = __file__.rpartition("/")[0].rpartition("/")[0]
    origin = here + "/__init__.py"
    spec = importer.ModuleSpec("hostkit", SourceFileLoader("hostkit", origin), origin=origin, is_package=True)
    spec.submodule_search_locations.append(here)
    spec.has_location = True
    importer._load(spec)


if __name__ == "__main__":
    _load_hostkit()
    from hostkit._worker._boot import main

    if sys.argv[1] == "template":
        from hostkit._worker._template import leave, serve

        main(*serve(int(sys.argv[2])))
        leave()
    else:
        main(int(sys.argv[1]), [])
