#!/usr/bin/env python
"""Train a cloned policy with asynchronous PPO in CALVIN, on the benchmark's own oracle.

Plays chains of one to five tasks, those lengths more often at which it sometimes succeeds and sometimes fails, or with
--suite calvin_d single tasks. Starts from --checkpoint, or without one from a short behaviour cloning that it runs
first. Leaves the policy in OUTPUT/checkpoint, its learning curve beside it, and metrics in MLflow.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors import ppo_job
from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings(ppo_job.Settings):
    """Settings of PPO in CALVIN (docs/ppo.md). What is left out comes from the recipe."""

    suite: str = "calvin_d_chains"
    """calvin_a to calvin_d, each with _chains for chains, whose tasks 0 to 4 are their lengths 1 to 5."""
    curriculum: bool | None = True
    """Play the tasks more often that sometimes succeed and sometimes fail."""


def main(settings: Settings) -> None:
    ppo_job.run(settings, calvin=True)


if __name__ == "__main__":
    run_job(main, Settings)
