"""Milliseconds an environment step of LIBERO, stock settings and ours, in turns.

Every case runs the same actions from the same published state, so all do the same physics, and whatever else the
machine does falls on all of them alike:

    stock       LIBERO's own environment with its defaults, cameras at every step
    reference   our simulator, stock pictures, only at decisions
    fast        our simulator, fast pictures, only at decisions
    physics     our simulator without cameras

Times are CPU times: what a step costs on a machine that does nothing else, where pictures are drawn by the processor.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.libero.adapter import NULL_ACTION, LiberoSimulator

STEPS = 8  # environment steps of each case in a turn
CAMERAS = ("agentview", "robot0_eye_in_hand")


@dataclass(frozen=True)
class Mode:
    """What a case does for STEPS steps: how many cameras, and after how many steps it decides."""

    cameras: int
    chunk: int


QUICK_MODES = (Mode(2, 8),)
ALL_MODES = (Mode(2, 8), Mode(2, 1), Mode(1, 8), Mode(1, 1), Mode(0, 8))


@dataclass
class Measured:
    """What came out of the turns of one suite.

    Attributes:
        milliseconds: median CPU time of an environment step by (case, image size, mode).
        squared_error: mean over decisions, (2,) for both cameras, of fast and of reference pictures against stock ones.
        state_error: by case, largest difference of its state from stock's.
        turns: how many there were.
    """

    milliseconds: dict[tuple[str, int, Mode], float]
    squared_error: dict[str, np.ndarray]
    state_error: dict[str, float]
    turns: int


class Stock:
    """LIBERO's `OffScreenRenderEnv` as its users make it, at published state 0 of a task."""

    def __init__(self, suite: str, task: int, assets: Path, size: int) -> None:
        from libero.libero.envs import OffScreenRenderEnv

        from avavla_ray.simulators.libero.environment import assets_in_use
        from avavla_ray.simulators.libero.suites import initial_states, task_at

        self.task, self._assets = task, assets
        described = task_at(suite, task)
        self._state = initial_states(described)[0]
        with assets_in_use(assets):
            self.env = OffScreenRenderEnv(
                bddl_file_name=str(described.bddl), camera_heights=size, camera_widths=size, ignore_done=True
            )
        self.reset()

    def reset(self) -> None:
        """Start the episode again, as the published evaluations do."""
        from avavla_ray.simulators.libero.environment import assets_in_use

        # As in the exactness tests: each hard reset of stock LIBERO draws more numbers than the one before.
        self.env.env.object_property_initializers.clear()
        with assets_in_use(self._assets):
            self.env.seed(0)
            self.env.reset()
        self.env.set_init_state(self._state)
        for _ in range(10):
            self.env.step(NULL_ACTION)

    def run(self, actions: np.ndarray, mode: Mode) -> np.ndarray | None:
        """Step through `actions` (C, 7); the pictures after the last one, as policies see them."""
        observables = self.env.env._observables
        for index, camera in enumerate(CAMERAS):
            # Not set_enabled, which would move the sampling clock of this observable alone.
            observables[f"{camera}_image"]._enabled = index < mode.cameras
        # Stock robosuite draws into whichever GL context is current.
        self.env.sim._render_context_offscreen.gl_ctx.make_current()
        for action in actions:
            observation, *_ = self.env.step(action)
        if mode.cameras < 2:
            return None
        return np.stack([observation[f"{camera}_image"] for camera in CAMERAS])[:, ::-1, ::-1]

    def state(self) -> np.ndarray:
        return self.env.get_sim_state()

    def close(self) -> None:
        self.env.close()


class Ours:
    """Our simulator at the same state."""

    def __init__(self, config: SimulatorConfig, task: int) -> None:
        self.simulator = LiberoSimulator(config)
        self.simulator.reset(task, initial_state=0)

    def run(self, actions: np.ndarray, mode: Mode) -> np.ndarray | None:
        """Step through `actions` (C, 7) in chunks; the pictures at the last decision."""
        if mode.cameras == 2:
            for start in range(0, len(actions), mode.chunk):
                result = self.simulator.run_chunk(actions[start : start + mode.chunk])
            assert not result.done
            return result.observation.images
        # The interface has no decisions with fewer cameras: this leaves out what it does around a step.
        scene = self.simulator.env.env
        for step, action in enumerate(actions, start=1):
            scene.watch(deciding=False, recording=mode.cameras == 1 and step % mode.chunk == 0)
            scene.step(action)
        return None

    def state(self) -> np.ndarray:
        return self.simulator.env.get_sim_state()

    def close(self) -> None:
        self.simulator.close()


@dataclass
class _Log:
    milliseconds: dict[tuple[str, int, Mode], list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    state_error: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def take_turns(
    suite: str, task: int, assets: str, sizes: tuple[int, ...], modes: tuple[Mode, ...], seconds: float, least: int
) -> Measured:
    """Let the cases take turns for `seconds`, at least `least` times; pictures are compared at the first size."""
    log = _Log()
    cases: dict[tuple[str, int], Stock | Ours] = {}
    renderers = {"reference": "reference", "fast": "fast", "physics": "none"}
    for size in sizes:
        for name, render in renderers.items():
            if size == sizes[0] or name == "fast":
                config = SimulatorConfig(suite, assets=assets, render=render, image_size=size, max_steps=1_000_000)
                cases[name, size] = Ours(config, task)
    some = next(iter(cases.values()))
    assert isinstance(some, Ours)
    for size in sizes:
        cases["stock", size] = Stock(suite, task, some.simulator.assets.path, size)
    random, begin, turns = np.random.default_rng(0), time.perf_counter(), 0
    while turns < least or time.perf_counter() - begin < seconds:
        for mode in modes:
            actions = random.uniform(-0.3, 0.3, (STEPS, 7)).astype(np.float32)
            actions[:, 6] = -1
            _turn(cases, mode, actions, log)
        turns += 1
    for case in cases.values():
        case.close()
    return Measured(
        {key: float(np.median(values)) for key, values in log.milliseconds.items()},
        {name: np.mean(values, axis=0) for name, values in log.errors.items()},
        log.state_error,
        turns,
    )


def _turn(cases: dict[tuple[str, int], Stock | Ours], mode: Mode, actions: np.ndarray, log: _Log) -> None:
    pictures, first = {}, min(size for _, size in cases)
    for (name, size), case in cases.items():
        start = time.process_time()
        pictures[name, size] = case.run(actions, mode)
        log.milliseconds[name, size, mode].append((time.process_time() - start) / len(actions) * 1e3)
    expected, state = pictures["stock", first], cases["stock", first].state()
    for (name, _), case in cases.items():
        log.state_error[name] = max(log.state_error[name], float(np.abs(case.state() - state).max()))
    for name in ("reference", "fast"):
        ours = pictures[name, first]
        if expected is not None and ours is not None:
            log.errors[name].append(np.square(ours - expected.astype(float)).mean(axis=(1, 2, 3)))


def decibels(squared_error: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures with this mean squared error."""
    return 10 * math.log10(255**2 / squared_error)


def time_any(suite: str, assets: str, chunk: int, steps: int) -> dict[str, Any]:
    """Median CPU milliseconds an environment step of a suite that has no stock to compare with, in random actions.

    One simulator after the other: some live alone in their process.

    Raises:
        InputError: the simulator is not installed.
    """
    from avavla_ray.simulators.registry import make_simulator, suite_spec

    dimensions, result = suite_spec(suite).action_dim, {}
    for name, render in (("fast", "fast"), ("physics", "none")):
        simulator = make_simulator(SimulatorConfig(suite, assets=assets, render=render))
        random, seed = np.random.default_rng(0), 0
        times: list[float] = []
        simulator.reset(0, seed=seed)
        while len(times) * chunk < steps:
            actions = random.uniform(-0.3, 0.3, (chunk, dimensions)).astype(np.float32)
            start = time.process_time()
            done = simulator.run_chunk(actions)
            times.append((time.process_time() - start) / done.duration * 1e3)
            if done.done:
                seed += 1
                simulator.reset(0, seed=seed)
        result[name] = float(np.median(times))
        simulator.close()
    return result
