"""The live view of a running host: numbers out of two snapshots, and the terminal that shows them (``hostkit[top]``)."""
