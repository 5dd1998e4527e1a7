"""What no working simulator sends."""

from __future__ import annotations

import math

import numpy as np

from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SuiteSpec


def wrong_observation(observation: Observation, spec: SuiteSpec, config: SimulatorConfig) -> str | None:
    """What is wrong with it, None if nothing.

    A single colour is looked for in the scene camera alone: the wrist camera may be pressed against something.
    """
    images, proprio = observation.images, observation.proprio
    expected = (spec.num_cameras, config.image_size, config.image_size, 3)
    if images.shape != expected or images.dtype != np.uint8:
        return f"images of {images.dtype} {images.shape} instead of uint8 {expected}"
    if proprio.shape != (spec.proprio_dim,):
        return f"proprioception of shape {proprio.shape} instead of ({spec.proprio_dim},)"
    if not np.isfinite(proprio).all():
        return f"proprioception that is not finite: {proprio}"
    scene = images[0]
    if config.render != "none" and (scene == scene[0, 0]).all():
        return f"a picture of the scene in a single colour, {tuple(scene[0, 0].tolist())}"
    return None


def wrong_result(result: ChunkResult, spec: SuiteSpec, config: SimulatorConfig, chunk: int) -> str | None:
    """What is wrong with what came of `chunk` actions, None if nothing."""
    if not 1 <= result.duration <= chunk:
        return f"{result.duration} executed steps of a chunk of {chunk}"
    if not math.isfinite(result.reward):
        return f"a reward of {result.reward}"
    return wrong_observation(result.observation, spec, config)
