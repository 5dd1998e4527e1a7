"""A job that joins a cluster, waits to be told to end, and then takes a while, as publishing does."""

from __future__ import annotations

import atexit
import time
from dataclasses import dataclass

from actors.cluster import connect
from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    pass


def main(settings: Settings) -> None:
    connect()
    atexit.register(time.sleep, 4)
    print("WAITING", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    run_job(main, Settings)
