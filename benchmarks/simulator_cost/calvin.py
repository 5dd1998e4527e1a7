"""CALVIN with its own settings and with ours, each in a process of its own: a process can hold one environment.

    stock       calvin_env's own step: both cameras at every step, OpenGL
    reference   our simulator, the same pictures, only at decisions
    fast        our simulator, PyBullet's tiny renderer, only at decisions
    none        our simulator without cameras

Every case runs the same actions from the same start. Times are CPU times.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.simulators.base import SimulatorConfig
from benchmarks.simulator_cost.processes import call_apart, private_mib, resident_mib
from benchmarks.simulator_cost.turns import decibels

CASES = ("stock", "reference", "fast", "none")
CHUNK, CHUNKS, SINGLE_STEPS = 8, 8, 16


def measure_here(suite: str, case: str, outcome: str) -> dict[str, float]:
    """Numbers of one case; run it in a fresh process.

    Args:
        outcome: npz file to write: pictures (N, V, H, W, 3) of the decisions, state at the end.

    Returns:
        start_s: construction and first reset, imports done. reset_s: another reset. ms_chunk_8, ms_chunk_1: median CPU
        milliseconds an environment step; stock has no chunks. private_mib, resident_mib: memory at the end.
    """
    from avavla_ray.simulators.calvin.adapter import CalvinSimulator
    from avavla_ray.simulators.calvin.observation import CAMERAS, resized

    stock, times, pictures = case == "stock", [], []
    render = "reference" if stock else case

    start = time.process_time()
    simulator = CalvinSimulator(SimulatorConfig(suite, render=render, max_steps=1_000_000))
    simulator.reset(0, initial_state=0)
    times.append(time.process_time() - start)
    start = time.process_time()
    simulator.reset(0, initial_state=0)
    times.append(time.process_time() - start)
    # As calvin_env is without us: each observation has its pictures.
    simulator.env.looking = stock

    def run(actions: np.ndarray) -> float:
        start = time.process_time()
        if stock:
            for action in actions:
                raw, *_ = simulator.env.step(action.astype(float))
            simulator._read(raw)
            seen = [raw["rgb_obs"][f"rgb_{camera}"] for camera in CAMERAS]
        else:
            result = simulator.run_chunk(actions)
            assert not result.done
            seen = []
        spent = (time.process_time() - start) / len(actions) * 1e3
        size = simulator.config.image_size
        pictures.append(np.stack([resized(each, size) for each in seen]) if seen else result.observation.images)
        return spent

    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (CHUNK * CHUNKS + SINGLE_STEPS, 7)).astype(np.float32)
    actions[:, 6] = 1
    in_chunks = [run(part) for part in np.split(actions[: CHUNK * CHUNKS], CHUNKS)]
    singly = [run(action[None]) for action in actions[CHUNK * CHUNKS :]]
    np.savez(outcome, pictures=pictures, state=np.concatenate([simulator.robot_obs, simulator.scene_obs]))
    result = {"start_s": times[0], "reset_s": times[1], "private_mib": private_mib(), "resident_mib": resident_mib()}
    simulator.close()
    return {"ms_chunk_8": float(np.median(in_chunks)), "ms_chunk_1": float(np.median(singly)), **result}


def measure_cases(suite: str) -> dict[str, dict[str, Any]]:
    """Numbers by case: `measure_here`, and against stock the speedup in chunks of 8, state and picture error."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            outcome = Path(folder) / f"{case}.npz"
            found[case] = call_apart(f"{__spec__.name}:measure_here", suite, case, str(outcome))
            with np.load(outcome) as saved:
                pictures, state = saved["pictures"].astype(float), saved["state"]
            if case == "stock":
                expected, stock_state = pictures, state
                continue
            found[case]["speedup_vs_stock"] = found["stock"]["ms_chunk_8"] / found[case]["ms_chunk_8"]
            found[case]["state_error"] = float(np.abs(state - stock_state).max())
            if case == "none":
                continue
            found[case]["image_error"] = error = float(np.square(pictures - expected).mean())
            if error:
                found[case]["image_psnr_db"] = decibels(error)
    return found
