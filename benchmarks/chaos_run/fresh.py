"""A policy to start from that has learned nothing."""

from __future__ import annotations

from pathlib import Path


def fresh_checkpoint(preset_name: str, seed: int, folder: Path) -> Path:
    """Random weights, in units in which actions are small motions."""
    import numpy as np
    import torch

    from avavla_ray.normalisation import FieldStatistics, Statistics
    from avavla_ray.policy.checkpoint import save_checkpoint
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy

    torch.manual_seed(seed)
    config = preset(preset_name)
    action, proprio = np.full(config.action_dim, 0.3), np.ones(config.proprio_dim)
    statistics = Statistics(
        "none", FieldStatistics.of(np.stack([-action, action])), FieldStatistics.of(np.stack([-proprio, proprio])),
        episodes=0, steps=0,
    )  # fmt: skip
    save_checkpoint(folder, AvaVlaPolicy(config), statistics, stage="none", provenance={})
    return folder
