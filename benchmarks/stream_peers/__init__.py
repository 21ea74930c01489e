"""Other streaming libraries on the pictures of `benchmarks/stream.py`, each in an environment of its own."""
