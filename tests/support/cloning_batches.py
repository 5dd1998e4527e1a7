"""Windows of noise to clone, and parts of them as workers and accumulated batches get them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avavla_ray.policy.config import PolicyConfig
from tests.support.policies import random_inputs


def noise_window(config: PolicyConfig, streams: int, decisions: int, seed: int = 3) -> dict[str, Tensor]:
    """A window as demonstrations/windows.py describes it, with "counts"; chunks are cut short here and there, and some
    streams begin an episode."""
    generator = torch.Generator().manual_seed(seed)
    inputs = random_inputs(config, streams * decisions, seed)
    left = torch.randint(1, 2 * config.chunk, (streams, decisions, 1), generator=generator)
    mask = torch.arange(config.chunk) < left
    return {
        **{name: part.unflatten(0, (streams, decisions)) for name, part in inputs._asdict().items()},
        "actions": 2 * torch.rand(streams, decisions, config.chunk, config.action_dim, generator=generator) - 1,
        "mask": mask,
        "starts": torch.rand(streams, decisions, generator=generator) < 0.3,
        "counts": mask.sum(dim=(0, 2)),
    }


def rows_of(window: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """These streams of a window; "counts" stay those of all."""
    return {name: part if name == "counts" else part[list(rows)] for name, part in window.items()}
