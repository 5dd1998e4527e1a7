"""LIBERO as it comes out of the box, to compare with, and things to do in a scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from avavla_ray.simulators.libero.adapter import NULL_ACTION, LiberoSimulator
from avavla_ray.simulators.libero.suites import initial_states, task_at

# The bundled set always, LIBERO's own geometry where there is a copy of it.
ASSETS = ["bundled", pytest.param("official", marks=pytest.mark.real_geometry)]


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    """(count, 7) actions over the whole range, downwards at first, so that the hand meets objects and table."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (count, 7)).astype(np.float32)
    actions[: count // 2, 2] = -np.abs(actions[: count // 2, 2])
    actions[:, 6] = np.sign(actions[:, 6])
    return actions


@contextmanager
def stock_episode(
    simulator: LiberoSimulator, task: int, initial_state: int | None, seed: int, cameras: bool
) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
    """LIBERO's own environment, hard-reset with the assets of `simulator` and settled, and its observation."""
    from libero.libero.envs import OffScreenRenderEnv

    from avavla_ray.simulators.libero.environment import assets_in_use

    described = task_at(simulator.config.suite, task)
    size = simulator.config.image_size
    with assets_in_use(simulator.assets.path):
        stock = OffScreenRenderEnv(
            bddl_file_name=str(described.bddl), camera_heights=size, camera_widths=size, use_camera_obs=cameras
        )
        # Each hard reset of stock LIBERO adds its drawer and knob samplers once more, and so draws other numbers.
        stock.env.object_property_initializers.clear()
        stock.seed(seed)
        observation = stock.reset()
    try:
        if initial_state is not None:
            observation = stock.set_init_state(initial_states(described)[initial_state])
        for _ in range(simulator.config.settle_steps):
            observation, *_ = stock.step(NULL_ACTION)
        yield stock, observation
    finally:
        stock.close()


def drop_into_basket(simulator: LiberoSimulator, name: str) -> None:
    """Put object `name` of a libero_object task above the basket; gravity does the rest."""
    domain, data = simulator.env.env, simulator.data
    above = data.xpos[domain.obj_body_id["basket_1"]] + [0.0, 0.0, 0.12]
    domain.sim.data.set_joint_qpos(f"{name}_joint0", np.concatenate([above, [1.0, 0.0, 0.0, 0.0]]))
    domain.sim.forward()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pictures, dB."""
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))
