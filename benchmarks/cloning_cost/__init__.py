"""What `benchmarks/bc.py` is made of."""
