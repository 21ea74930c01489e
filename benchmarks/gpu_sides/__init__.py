"""The parts of `gpu.py`: each measures some lines of its table and keeps the raw numbers."""
