"""LIBERO as published implementations step it: robosuite's own environment, which renders at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from avavla_ray.simulators.base import ChunkResult, Observation, Simulator, SimulatorConfig
from avavla_ray.simulators.libero.adapter import axis_angle
from avavla_ray.simulators.libero.assets import resolve_assets
from avavla_ray.simulators.libero.installation import prepare
from avavla_ray.simulators.libero.suites import suite_spec, task_at


class StockLibero:
    """`OffScreenRenderEnv` behind the `Simulator` interface: for one task, from its published state 0."""

    def __init__(self, config: SimulatorConfig) -> None:
        prepare()
        from benchmarks.simulator_cost.turns import CAMERAS, Stock  # which imports robosuite

        self.config, self.spec = config, suite_spec(config.suite)
        self._cameras = CAMERAS
        self._task = config.tasks[0]
        self._stock = Stock(
            config.suite, self._task, resolve_assets(config.assets, config.suite).path, config.image_size
        )
        self._fresh, self._steps = True, 0

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """Begin again; `initial_state` and `seed` change nothing."""
        if not self._fresh:
            self._stock.reset()
        self._fresh, self._steps = False, 0
        return self._observation(self._stock.env.env._get_observations())

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`; with stock's pictures at every step."""
        env = self._stock.env
        env.sim._render_context_offscreen.gl_ctx.make_current()  # robosuite draws into whichever is
        success = False
        for duration, action in enumerate(actions, start=1):  # noqa: B007  what was executed
            seen, *_ = env.step(action)
            self._steps += 1
            success = bool(env.check_success())
            if success or self._steps >= self.spec.max_steps:
                break
        truncated = not success and self._steps >= self.spec.max_steps
        return ChunkResult(self._observation(seen), float(success), success, truncated, duration)

    def _observation(self, seen: Any) -> Observation:
        pictures = np.stack([seen[f"{camera}_image"] for camera in self._cameras])[:, ::-1, ::-1]
        proprio = np.concatenate([
            seen["robot0_eef_pos"], axis_angle(seen["robot0_eef_quat"]), seen["robot0_gripper_qpos"],
        ])  # fmt: skip
        instruction = task_at(self.config.suite, self._task).instruction
        return Observation(pictures.copy(), proprio.astype(np.float32), instruction)

    def frames(self) -> list[np.ndarray]:
        return []

    def provenance(self) -> dict[str, Any]:
        return {"simulator": "libero", "render": "stock, every step"}

    def close(self) -> None:
        self._stock.close()


def make_stock(config: SimulatorConfig) -> Simulator:
    """See `StockLibero`."""
    return StockLibero(config)  # type: ignore[return-value]
