"""The parts of `benchmarks/quality.py`: recipes, the training of one of them, the yardstick, curves."""
