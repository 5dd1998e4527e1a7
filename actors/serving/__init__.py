"""A policy behind HTTP for robots: `jobs/serve.py` starts it, docs/serving.md describes what it speaks.

    HTTP (app.py) -> the request's form (conventions.py, wire.py) -> belief (sessions.py, belief_text.py)
                  -> batch (batching.py) -> a policy on the cluster (replica.py), one forward pass for the batch

HTTP, beliefs and batches live in the job's own process; Ray Serve keeps the policies alive. So a policy that dies takes
no belief along, several policies share the robots, and a request doesn't pass through Serve's HTTP proxy, which costs
more than a decision of a small policy (docs/serving.md has the measurement).
"""
