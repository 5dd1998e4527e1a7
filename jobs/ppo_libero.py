#!/usr/bin/env python
"""Train the latent reasoning of a cloned policy with asynchronous PPO in LIBERO.

Starts from --checkpoint, or without one from a short behaviour cloning that it runs first. Leaves the policy in
OUTPUT/checkpoint, its learning curve beside it, and metrics in MLflow. Ends with the first budget that is used up.
"""

from __future__ import annotations

from actors.ppo_job import Settings, run
from avavla_ray.command_line import run_job


def main(settings: Settings) -> None:
    run(settings, calvin=False)


if __name__ == "__main__":
    run_job(main, Settings)
