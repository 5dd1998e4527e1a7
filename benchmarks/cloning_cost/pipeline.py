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
        source = RayDataSource(loader, cpus=cpus)(schedule.requests(range(streams)))
        # Decisions come a block at a time: two blocks pass before the clock starts.
        rates[f"pipeline{suffix}_decisions_per_s"] = _rate(source, 16, seconds)
        source.close()
        here = (loader(request) for request in schedule.requests(range(streams)))
        rates[f"in_process{suffix}_decisions_per_s"] = _rate(here, 2, seconds / 2)
    return rates


def _rate(loaded: Iterator[Decisions], first: int, seconds: float) -> float:
    for _ in itertools.islice(loaded, first):
        pass
    count, begin = 0, time.perf_counter()
    for decisions in loaded:
        count += len(decisions.mask)
        if time.perf_counter() - begin >= seconds:
            break
    return count / (time.perf_counter() - begin)
