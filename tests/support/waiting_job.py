"""A job that joins a cluster and waits to be told to end."""

from __future__ import annotations

import time
from dataclasses import dataclass

from actors.cluster import connect
from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    pass


def main(settings: Settings) -> None:
    connect()
    print("WAITING", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    run_job(main, Settings)
