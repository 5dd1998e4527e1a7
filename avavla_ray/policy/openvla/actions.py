"""Actions as tokens: each dimension in [-1, 1] falls into one of 256 bins, which are the vocabulary's last tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avavla_ray.policy.openvla.config import OpenVlaConfig


class ActionBins:
    """Between normalised actions and token ids. Bin 1 is the lowest value and the vocabulary's last word."""

    def __init__(self, config: OpenVlaConfig) -> None:
        self.words = config.words
        # NumPy's linspace, as the reference: torch's differs in the last bit, which moves values on an edge.
        self.edges = torch.from_numpy(np.linspace(-1.0, 1.0, config.bins))
        self.centres = (self.edges[:-1] + self.edges[1:]) / 2

    def encode(self, actions: Tensor) -> Tensor:
        """(...) in [-1, 1], clipped to it -> token ids (...) int64."""
        values = actions.detach().to("cpu", torch.float64).clamp(-1.0, 1.0)
        return (self.words - torch.bucketize(values, self.edges, right=True)).to(actions.device)

    def decode(self, ids: Tensor) -> Tensor:
        """Token ids (...) -> bin centres (...) float64. An id that is no action token counts as the nearest one."""
        index = (self.words - ids - 1).clamp(0, len(self.centres) - 1)
        return self.centres.to(ids.device)[index]
