"""LIBERO behind the `Simulator` interface."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.provenance import package_versions
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure, SuiteSpec
from avavla_ray.simulators.episodes import check_start, checked_actions
from avavla_ray.simulators.libero.assets import AssetSource, resolve_assets
from avavla_ray.simulators.libero.installation import prepare
from avavla_ray.simulators.libero.suites import Task, initial_states, suite_spec, task_at
from avavla_ray.simulators.registry import check_config
from avavla_ray.timing import span

if TYPE_CHECKING:
    from avavla_ray.simulators.libero.environment import LiberoEnvironment
    from avavla_ray.simulators.libero.rendering import SharedContext
    from avavla_ray.simulators.libero.sampling import Sample

# Each costs 20 MiB with the bundled assets, 80 with LIBERO's own, 130 when these are drawn by the reference renderer.
KEPT_TASKS = 5
NULL_ACTION = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(3,) rotation vector, radians, of a unit quaternion (x, y, z, w).

    q and -q are one rotation. The one with x >= 0 is taken: the hand points down, a half turn about x, so this choice
    is continuous around every pose that it works in, where w >= 0 would flip the sign of the vector at rest.
    """
    x, y, z, w = quaternion if quaternion[0] >= 0 else -quaternion
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-8:
        return np.zeros(3)
    return np.array([x, y, z]) / length * (2 * math.atan2(length, w))


class LiberoSimulator:
    """One LIBERO scene; it keeps the environments of the last KEPT_TASKS tasks, so that going back to one is cheap.

    Observations are sampled when stock LIBERO samples them: one physics step (2 ms) before the end of an environment
    step after a published initial state, at its end after a drawn one. An episode that succeeds inside a chunk is
    observed at the end of its last step.

    States are stock LIBERO's to the last bit with the reference renderer. With the others the solver of contact forces
    skips what stock repeats: equal to rounding, which grows while the hand pushes (`stepping.Steps.exact`).

    Attributes:
        env: LIBERO's environment of the current task, for scripted experts; so are `model` and `data`.
        task: the current task, None before the first reset.
        assets: the set of assets in use.

    Raises:
        InputError: unknown suite or task, assets that do not cover the suite, no OpenGL, LIBERO not installed.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        check_config(config)
        self.config = config
        self.spec = suite_spec(config.suite)
        for task in config.tasks:
            task_at(config.suite, task)
        self.assets: AssetSource = resolve_assets(config.assets, config.suite)
        prepare()
        self.max_steps = self.spec.max_steps if config.max_steps is None else config.max_steps
        self.env: Any = None
        self.task: Task | None = None
        self._kept: OrderedDict[Task, LiberoEnvironment] = OrderedDict()
        self._context: SharedContext | None = None
        self._running = False
        self._steps = 0
        self._frames: list[np.ndarray] = []

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`."""
        return suite_spec(suite)

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `Simulator.identify`: the kind of assets and their digest."""
        assets = resolve_assets(config.assets, config.suite)
        return {"assets": assets.kind, "assets_digest": assets.digest}

    @property
    def model(self) -> Any:
        """MuJoCo's MjModel of the current task."""
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        """MuJoCo's MjData of the current task."""
        return self.env.sim.data._data

    def _build(self, task: Task) -> LiberoEnvironment:
        from avavla_ray.simulators.libero.environment import LiberoEnvironment
        from avavla_ray.simulators.libero.fast import Blind, FastRendering
        from avavla_ray.simulators.libero.rendering import SharedContext
        from avavla_ray.simulators.libero.stepping import Steps

        mixin = {"reference": Steps, "fast": FastRendering, "none": Blind}[self.config.render]
        if self._context is None and mixin.draws_with is not None:
            self._context = SharedContext(self.config.image_size)
        try:
            return LiberoEnvironment(task.bddl, self.assets.path, self.config.image_size, mixin, self._context)
        except InputError:  # a ValueError, too, but one that says what is wrong and what to do
            raise
        except (FileNotFoundError, ValueError) as error:
            # An object's XML that is absent, or a mesh or texture in it that MuJoCo cannot read.
            raise InputError(
                f"the assets at {self.assets.path} do not cover {task.suite} task {task.index} "
                f"({' '.join(str(error).split())}): use --assets official or another directory"
            ) from error

    def _switch_to(self, task: Task) -> None:
        """Make `task` the current one: its environment is taken from those that are kept, or built."""
        if task in self._kept:
            self._kept.move_to_end(task)
        else:
            self.env = self.task = None
            while len(self._kept) >= KEPT_TASKS:
                self._kept.popitem(last=False)[1].close()
            with span("construction"):
                self._kept[task] = self._build(task)
        self.env, self.task = self._kept[task], task

    def _drop(self) -> None:
        """Free the environment of the current task."""
        assert self.task is not None
        self._kept.pop(self.task).close()
        self.env = self.task = None
        self._running = False

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """See `Simulator.reset`. Fixtures are placed with `seed` also when `initial_state` is given.

        Raises:
            InputError: the task or the initial state does not exist, or the assets lack one of its files.
            SimulatorFailure: objects could not be placed, or the simulation broke while they settled.
        """
        check_start(self.spec, self.config, task, initial_state)
        wanted = task_at(self.config.suite, task)
        self._steps, self._frames, self._running = 0, [], False
        self._switch_to(wanted)
        scene = self.env.env
        with self._failing_loudly(), span("reset"):
            scene.watch(deciding=False)
            scene.reset_with(seed)
            if initial_state is None:
                scene.scatter_arm(seed)
            else:
                self.env.set_init_state(initial_states(wanted)[initial_state])
            for step in range(self.config.settle_steps):
                scene.watch(deciding=step == self.config.settle_steps - 1)
                scene.step(NULL_ACTION)
            if not self.config.settle_steps:
                scene.watch(deciding=True)
                scene.sample_now()
        self._running = True
        return self._observation(scene.sample)

    @contextlib.contextmanager
    def _failing_loudly(self) -> Iterator[None]:
        """Turn a broken simulation into SimulatorFailure, and drop the environment: its state cannot be trusted."""
        import mujoco

        kinds = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
        try:
            yield
            # MuJoCo answers a diverged state with a warning and a silent reset to the model's default pose.
            bad = [kind.name for kind in kinds if self.data.warning[kind].number]
            if bad:
                raise SimulatorFailure(f"physics diverged in {self.config.suite}: {', '.join(bad)}")
        except (mujoco.FatalError, np.linalg.LinAlgError) as error:
            self._drop()
            raise SimulatorFailure(f"{self.config.suite} broke: {error}") from error
        except SimulatorFailure:
            self._drop()
            raise

    def _observation(self, sample: Sample) -> Observation:
        assert self.task is not None
        with span("observation"):
            proprio = np.concatenate([sample.position, axis_angle(sample.quaternion), sample.fingers])
            return Observation(self._upright(sample.pictures), proprio.astype(np.float32), self.task.instruction)

    @staticmethod
    def _upright(pictures: np.ndarray) -> np.ndarray:
        # OpenGL rows run bottom up; OpenVLA turns the raw frame by 180 degrees, and policies expect its mirror image.
        return pictures[..., ::-1, ::-1, :].copy()

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`.

        Raises:
            InputError: actions of another shape or not finite, or no episode is running.
            SimulatorFailure: the physics diverged or MuJoCo gave up; the next reset builds the scene anew.
        """
        actions = checked_actions(self.spec, actions)
        if not self._running:
            raise InputError("no episode is running: call reset first")
        last = min(len(actions), self.max_steps - self._steps)
        scene = self.env.env
        for duration, action in enumerate(actions[:last], start=1):
            with self._failing_loudly(), span("physics"):
                scene.watch(deciding=duration == last, recording=record)
                success = scene.step(action)
                if success and duration < last:
                    scene.watch(deciding=True)
                    scene.sample_now()
            self._steps += 1
            if record:
                self._frames.append(self._upright(scene.sample.pictures[0]))
            if success:
                break
        truncated = not success and self._steps >= self.max_steps
        self._running = not (success or truncated)
        return ChunkResult(self._observation(scene.sample), float(success), success, truncated, duration)

    def frames(self) -> list[np.ndarray]:
        """See `Simulator.frames`."""
        frames, self._frames = self._frames, []
        return frames

    def provenance(self) -> dict[str, Any]:
        """See `Simulator.provenance`."""
        versions = package_versions()
        return {
            "simulator": "libero", "suite": self.config.suite, "render": self.config.render,
            "physics": "stock" if self.config.render == "reference" else "stock to rounding",
            "image_size": self.config.image_size, "settle_steps": self.config.settle_steps,
            "max_steps": self.max_steps, "assets": self.assets.kind, "assets_path": str(self.assets.path),
            "assets_digest": self.assets.digest, "mujoco": versions["mujoco"], "robosuite": versions["robosuite"],
            "hf_libero": versions["hf-libero"],
        }  # fmt: skip

    def close(self) -> None:
        """Free all environments and the OpenGL context; the simulator can be reset again."""
        for environment in self._kept.values():
            environment.close()
        self._kept.clear()
        if self._context is not None:
            self._context.release()
        self._context = self.env = self.task = None
        self._running = False
