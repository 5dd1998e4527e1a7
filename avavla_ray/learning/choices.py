"""Names of the switches of PPO's maths, for those who offer them without needing torch."""

CORRECTIONS = ("decoupled", "naive", "vtrace")  # see ppo.py
OVER = ("decisions", "steps", "none")  # see normalise.py
