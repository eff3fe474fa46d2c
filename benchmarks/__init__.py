"""Measure hostkit side by side with its peers: ``python -m benchmarks`` from the repository's root."""
