"""What `benchmarks/simulators.py` is made of: turns of cases, costs of a process, the tables."""
