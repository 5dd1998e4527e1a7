"""A trial of Tune that draws nothing and trains nothing, for what Tune does with trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from actors.sweep_gae import STEPWISE


class DrawnPPO(tune.Trainable):
    """Reports as PPO does, but for one point, at which it fails."""

    def step(self) -> dict[str, Any]:
        if self.config["clip"] == 0.3:
            raise RuntimeError("it has diverged")
        return {**dict.fromkeys(STEPWISE, 0.5), "env_steps": 100 * (self.iteration + 1), "window": 20}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "empty").touch()

    def load_checkpoint(self, checkpoint: Any) -> None:
        """There is nothing in it."""
