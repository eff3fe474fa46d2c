"""The worker's side: standard library only, syntax of CPython 3.9, the same files for every interpreter."""
