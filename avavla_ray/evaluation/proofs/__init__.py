"""The project's proofs: what they show, the jobs they are made of, and what is published of them (jobs/prove.py).

step.py            what a proof is made of
catalogue.py       the proofs, and their sizes
targets.py         what they are to reach
notes.py           which steps are finished, and how long they took
chain.py           runs the steps
rows.py            the published numbers
cloning_curve.py   how a cloning went
result.py          OUTPUT/result
private.py         no path or name of a machine is published
publish.py         results/
table.py           the tables of results/README.md
"""
