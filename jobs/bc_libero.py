#!/usr/bin/env python
"""Clone LIBERO demonstrations with Ray Train and DeepSpeed, then warm the latent loop up on them.

Reads what collect_demos or import_demos wrote; leaves the policy in OUTPUT/checkpoint, the one with the lowest held-out
error in OUTPUT/best, and its curves in MLflow.
"""

from __future__ import annotations

from actors.cloning_job import Settings, run
from avavla_ray.command_line import run_job


def main(settings: Settings) -> None:
    run(settings, calvin=False)


if __name__ == "__main__":
    run_job(main, Settings)
