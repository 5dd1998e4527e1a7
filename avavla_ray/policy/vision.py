"""Vision encoder of the small presets: a convolutional stem makes a grid of visual tokens for each camera.

Beside the tokens it reads keypoints off each camera's feature map by spatial softmax: where a feature is, in image
coordinates, which is what a few dozen demonstrations suffice to learn from. What is no wider than a cell of that map
is found much sooner on the map before it (`fine_keypoints`): features that see little around them say little else.

What the detectors look for depends on the instruction. Where places and words meet in the observation encoding only,
whose parts are added up, "reach the red block" and "reach the green block" stay the same for a long time: the product
of both that a choice between blocks needs is a small, late term of the sum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.positions import sincos_2d

# Standard deviation of detectors' weights at the start. With a linear layer's usual ones their softmax over places is
# flat, every keypoint lies in the middle, and hundreds of steps go by until one moves.
KEYPOINT_SPREAD = 0.5


class VisualFeatures(NamedTuple):
    """tokens (B, N, D), camera by camera in row-major order. pooled (B, V, F): mean features, then keypoints."""

    tokens: Tensor
    pooled: Tensor


class _Stage(nn.Module):
    """Strided convolution, and a residual one where the map has become small enough for it to be cheap."""

    def __init__(self, channels_in: int, channels: int, stride: int, refine: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels, 2 * stride - 1, stride, padding=stride - 1, bias=False)
        self.norm = nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1) if refine else None

    def forward(self, x: Tensor) -> Tensor:
        # In place: the maps are what memory is moved for here.
        x = F.relu(self.norm(self.reduce(x)), inplace=True)
        return x if self.refine is None else x + F.relu(self.refine(x), inplace=True)


class VisionEncoder(nn.Module):
    """(B, V, H, W, 3) uint8 images and words to visual tokens and pooled features. One stem for all cameras."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        stages: list[nn.Module] = []
        channels_in = 3
        for index, channels in enumerate(config.stem_channels):
            last = index == len(config.stem_channels) - 1
            stages.append(_Stage(channels_in, channels, stride=4 if index == 0 else 2, refine=last))
            channels_in = channels
        self.stem = nn.Sequential(*stages)
        self.project = nn.Linear(channels_in, config.width)
        grid = config.grid
        self.positions = nn.Parameter(0.2 * sincos_2d(grid, config.width))
        self.camera = nn.Parameter(0.02 * torch.randn(config.num_cameras, 1, config.width))
        searched = config.stem_channels[-2 if config.fine_keypoints else -1]
        # No bias: a softmax over places would not feel it.
        self.keypoints = nn.Linear(searched, config.num_cameras * config.keypoints, bias=False)
        with torch.no_grad():  # a linear layer's deviation is 1 / sqrt(3 inputs)
            self.keypoints.weight.mul_(KEYPOINT_SPREAD * math.sqrt(3 * searched))
        # What the instruction adds to them, in all cameras the same; at first nothing.
        asked = torch.zeros(config.keypoints * searched, config.width)
        self.asked = nn.Parameter(asked) if config.keypoints_from_text else None
        cells = config.keypoint_grid
        axis = (torch.arange(cells, dtype=torch.float32) + 0.5) / cells * 2 - 1
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(cells * cells, 2)
        self.register_buffer("places", places, persistent=False)

    @staticmethod
    def pooled_width(config: BackboneConfig) -> int:
        """F: width of a camera's pooled features."""
        return config.stem_channels[-1] + 2 * config.keypoints

    def forward(self, images: Tensor, words: Tensor) -> VisualFeatures:
        """(B, V, H, W, 3) uint8, mean text embedding (B, D) -> visual tokens and pooled features."""
        B, V, height, width, _ = images.shape
        size = self.config.image_size
        # (H, W, 3) memory seen as (3, H, W) is already the channels-last layout that CPU convolutions like best.
        x = images.reshape(B * V, height, width, 3).permute(0, 3, 1, 2).to(self.project.weight.dtype, copy=True)
        x = x.mul_(1 / 127.5).sub_(1.0)
        if height != size or width != size:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        before, maps = x, self.stem[0](x)
        for stage in self.stem[1:]:
            before, maps = maps, stage(maps)
        features = self._cells(maps, V)
        searched = self._cells(before, V) if self.config.fine_keypoints else features
        tiles = features if self.config.pool == 1 else self._cells(F.avg_pool2d(maps, self.config.pool), V)
        tokens = self.project(tiles) + self.positions + self.camera
        # Every camera has keypoint detectors of its own: column block v of the shared projection.
        detectors = self.keypoints.weight.view(1, V, -1, searched.shape[-1])
        if self.asked is not None:
            detectors = detectors + F.linear(words, self.asked).view(B, 1, *detectors.shape[2:])
        scores = detectors @ searched.transpose(2, 3)
        points = (scores.softmax(dim=-1) @ self.places).flatten(2)
        pooled = torch.cat([features.mean(dim=2), points], dim=-1)
        return VisualFeatures(tokens.flatten(1, 2), pooled)

    @staticmethod
    def _cells(maps: Tensor, V: int) -> Tensor:
        """(B V, F, h, w) -> (B, V, h w, F)."""
        return maps.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, V))
