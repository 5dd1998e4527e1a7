"""What `benchmarks/policy.py` is made of."""
