"""What all tests share: one Ray cluster for the whole session, and the shared real LIBERO assets if there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from actors.cluster import PROCESS_ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent

# A property is no less true on a busy machine; pytest's own timeout ends what hangs.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# What costs every start of Ray and Ray Train seconds and helps no test: workers that wait for work, which nobody gets
# since ours have settings of their own, an actor that looks out for machines on notice, polling every 2 seconds only.
_SHORT = {
    "RAY_prestart_worker_first_driver": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}

# The test process itself steps simulators and trains as the actors do.
for _name, _value in {**PROCESS_ENVIRONMENT, **_SHORT}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[dict[str, str]]:
    """A cluster of this session's own with 4 slots; yields the environment that its processes get."""
    import ray

    environment = dict(PROCESS_ENVIRONMENT)
    environment |= {k: os.environ[k] for k in ("LIBERO_ASSETS_PATH", "AVAVLA_CACHE") if k in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=True, logging_level="ERROR",
        runtime_env={"env_vars": environment},
    )  # fmt: skip
    yield environment
    ray.shutdown()


@pytest.fixture(scope="session")
def real_assets() -> Path:
    """Folder with LIBERO's own geometry; tests marked real_geometry are skipped without it."""
    place = os.environ.get("LIBERO_ASSETS_PATH", "")
    if not place or not Path(place).is_dir():
        pytest.skip("LIBERO_ASSETS_PATH names no folder with LIBERO's own geometry")
    return Path(place)
