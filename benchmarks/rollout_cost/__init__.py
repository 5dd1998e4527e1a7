"""What `benchmarks/rollout.py` is made of."""
