"""What `benchmarks/evaluation.py` is made of."""
