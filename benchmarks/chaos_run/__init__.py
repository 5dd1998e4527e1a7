"""The parts of benchmarks/chaos.py: a run that is struck, what strikes it, and what came of it."""
