"""Where a worker begins: ``python -I -S .../hostkit/_worker FD``, FD being the control socket.

It loads the host's own hostkit by path, so that host and worker never differ in protocol and a virtual environment without
hostkit can run a worker too, and hands over to ``_boot``.
"""

import sys


def _load_hostkit():  # type: ignore[no-untyped-def]
    from importlib.machinery import SourceFileLoader

    # Frozen importlib's own pieces: importlib.util costs milliseconds.
    from _frozen_importlib import ModuleSpec, _load

    here = __file__.rpartition("/")[0].rpartition("/")[0]
    spec = ModuleSpec("hostkit", SourceFileLoader("hostkit", here + "/__init__.py"), origin=here + "/__init__.py", is_package=True)
    spec.submodule_search_locations.append(here)
    spec.cached = None
    spec.has_location = True
    _load(spec)


if __name__ == "__main__":
    _load_hostkit()
    from hostkit._worker._boot import main

    main(int(sys.argv[1]))
