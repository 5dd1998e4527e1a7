"""How many decisions a second the demonstrations give when nobody trains on them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from avavla_ray.demonstrations.augmentation import OPENVLA, Augmentation
from avavla_ray.demonstrations.decisions import Decisions, DrawLoader, WindowSettings
from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.schedule import DecisionSchedule
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.training.loading import RayDataSource

DRAWS_PER_TASK = 8


def measure_pipeline(
    mixture: Mixture, config: PolicyConfig, streams: int, cpus: float, seconds: float
) -> dict[str, float]:
    """Decisions a second, read, decoded, prepared and augmented, from Ray Data's tasks and in this process.

    Args:
        cpus: that the tasks may hold. seconds: of each of the four measurements, once decisions flow.
    """
    rates = {}
    for suffix, augmentation in (("", Augmentation()), ("_augmented", OPENVLA)):
        settings = WindowSettings(streams=streams, chunk=config.chunk, augmentation=augmentation)
        loader = DrawLoader(mixture, settings, backbone=config.backbone)
        schedule = DecisionSchedule(loader.lengths, streams, config.chunk, settings.seed)
        source = RayDataSource(loader, cpus=cpus, draws_per_task=DRAWS_PER_TASK)(schedule.requests(range(streams)))
        rates[f"pipeline{suffix}_decisions_per_s"] = _rate(source, DRAWS_PER_TASK, seconds)
        source.close()
        here = (loader(request) for request in schedule.requests(range(streams)))
        rates[f"in_process{suffix}_decisions_per_s"] = _rate(here, 1, seconds / 2)
    return rates


def _rate(loaded: Iterator[Decisions], together: int, seconds: float) -> float:
    """Decisions a second from the arrival of one block to that of another; `together`: draws of a block."""
    for _ in itertools.islice(loaded, 2 * together):
        pass
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        count += sum(len(decisions.mask) for decisions in itertools.islice(loaded, together))
    return count / (time.perf_counter() - begin)
