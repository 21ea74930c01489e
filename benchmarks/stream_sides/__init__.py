"""Our sides of `benchmarks/stream.py`, each a process of its own that prints one line of JSON."""
