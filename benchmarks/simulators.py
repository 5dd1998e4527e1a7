#!/usr/bin/env python
"""Environment steps a second of LIBERO with two cameras: ours against stock settings that render every step.

Four cases take turns, chunk by chunk, from the same initial state with the same actions, so that they do the same
physics and whatever else the machine does falls on all of them alike:

    stock       LIBERO's own environment with its defaults, both cameras at every step
    reference   our simulator, stock pictures, only at decisions
    fast        our simulator, fast pictures, only at decisions
    physics     our simulator without cameras
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.command_line import run_job
from avavla_ray.files import write_json


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: fewer chunks; ends within 45 s on 2 cores.
        json: file for the numbers.
        chunk: environment steps a decision.
    """

    quick: bool = False
    json: Path | None = None
    suite: str = "libero_object"
    task: int = 0
    assets: str = "bundled"
    image_size: int = 128
    chunk: int = 8


def main(settings: Settings) -> None:
    numbers = measure(settings, seconds=15.0 if settings.quick else 60.0)
    for name, value in numbers.items():
        print(f"{name:>24} {value:.4g}" if isinstance(value, float) else f"{name:>24} {value}")
    if settings.json is not None:
        write_json(settings.json, numbers)


def stock_environment(settings: Settings, assets: Path) -> tuple[Any, float]:
    """LIBERO's `OffScreenRenderEnv` as its users make it, at the published state 0, and the seconds of its reset."""
    from libero.libero.envs import OffScreenRenderEnv

    from avavla_ray.simulators.libero.adapter import NULL_ACTION
    from avavla_ray.simulators.libero.environment import assets_in_use
    from avavla_ray.simulators.libero.suites import initial_states, task_at

    task, size = task_at(settings.suite, settings.task), settings.image_size
    with assets_in_use(assets):
        stock = OffScreenRenderEnv(
            bddl_file_name=str(task.bddl), camera_heights=size, camera_widths=size, ignore_done=True
        )
        # As in the exactness tests: each hard reset of stock LIBERO draws more numbers than the one before.
        stock.env.object_property_initializers.clear()
        start = time.perf_counter()
        stock.seed(0)
        stock.reset()
    stock.set_init_state(initial_states(task)[0])
    for _ in range(10):
        stock.step(NULL_ACTION)
    return stock, time.perf_counter() - start


def measure(settings: Settings, seconds: float) -> dict[str, Any]:
    """Let the cases take turns for `seconds`, and compare their times and pictures.

    Rates are medians over turns of wall time; pictures are compared at every decision.
    """
    import numpy as np

    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.libero.adapter import LiberoSimulator

    def config(render: str) -> SimulatorConfig:
        return SimulatorConfig(
            suite=settings.suite, assets=settings.assets, render=render, image_size=settings.image_size,
            max_steps=1_000_000,
        )  # fmt: skip

    ours: dict[str, LiberoSimulator] = {
        "reference": LiberoSimulator(config("reference")),
        "fast": LiberoSimulator(config("fast")),
        "physics": LiberoSimulator(config("none")),
    }
    built: dict[str, float] = {}
    reset: dict[str, float] = {}
    for name, simulator in ours.items():
        for times in (built, reset):
            start = time.perf_counter()
            simulator.reset(settings.task, initial_state=0)
            times[name] = time.perf_counter() - start
    stock, reset["stock"] = stock_environment(settings, ours["fast"].assets.path)

    random = np.random.default_rng(0)
    milliseconds: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, list[np.ndarray]] = {"reference": [], "fast": []}
    drift = 0.0
    begin = time.perf_counter()
    while len(milliseconds["stock"]) < 3 or time.perf_counter() - begin < seconds:
        actions = random.uniform(-0.3, 0.3, (settings.chunk, 7)).astype(np.float32)
        actions[:, 6] = -1
        # Stock robosuite draws into whichever GL context is current.
        stock.sim._render_context_offscreen.gl_ctx.make_current()
        start = time.perf_counter()
        for action in actions:
            observation, *_ = stock.step(action)
        milliseconds["stock"].append((time.perf_counter() - start) / settings.chunk * 1e3)
        expected = np.stack([observation["agentview_image"], observation["robot0_eye_in_hand_image"]])[:, ::-1, ::-1]
        for name, simulator in ours.items():
            start = time.perf_counter()
            result = simulator.run_chunk(actions)
            milliseconds[name].append((time.perf_counter() - start) / settings.chunk * 1e3)
            if name in errors:
                errors[name].append(np.square(result.observation.images - expected.astype(float)).mean(axis=(1, 2, 3)))
            drift = max(drift, float(np.abs(simulator.env.get_sim_state() - stock.get_sim_state()).max()))
        assert not result.done

    stock.close()
    for simulator in ours.values():
        simulator.close()
    median = {name: float(np.median(values)) for name, values in milliseconds.items()}
    fast = np.mean(errors["fast"], axis=0)
    return {
        "speedup_vs_stock": median["stock"] / median["fast"],
        "cost_over_physics": median["fast"] / median["physics"],
        "image_psnr_db": decibels(fast.mean()),
        "image_psnr_db_scene": decibels(fast[0]),
        "image_psnr_db_wrist": decibels(fast[1]),
        "reference_speedup_vs_stock": median["stock"] / median["reference"],
        "reference_image_error": float(np.max(errors["reference"])),
        "state_error": drift,
        **{f"env_steps_per_s_{name}": 1e3 / value for name, value in median.items()},
        **{f"ms_per_step_{name}": value for name, value in median.items()},
        **{f"reset_s_{name}": value for name, value in reset.items()},
        "build_s_fast": built["fast"] - reset["fast"],
        "chunks": len(milliseconds["stock"]),
        "chunk": settings.chunk,
        "suite": settings.suite,
        "task": settings.task,
        "assets": settings.assets,
        "image_size": settings.image_size,
    }


def decibels(squared_error: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures with this mean squared error."""
    import math

    return 10 * math.log10(255**2 / squared_error)


if __name__ == "__main__":
    run_job(main, Settings)
