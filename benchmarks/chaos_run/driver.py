"""The driver of a run that is to be struck: asynchronous PPO as jobs/ppo_libero.py runs it, with shorter patience.

python -m benchmarks.chaos_run.driver PLAN.json [--resume]
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

KIND = "ppo"


@dataclass(frozen=True)
class Plan:
    """What to train; paths are text, as it goes through a file.

    Attributes:
        output: folder of the run. records: what its simulators write down. end: the run ends once this file is there.
        uri: of the MLflow store. checkpoint: to start from.
        updates: the run ends after so many; None waits for `end`.
        simulators: of each runner. ppo: fields of PPOSettings.
        runner_s, server_s, learner_s: a part that is silent for longer has hung.
    """

    output: str
    records: str
    end: str
    uri: str
    checkpoint: str
    updates: int | None = None
    suite: str = "tabletop"
    tasks: tuple[int, ...] = (0,)
    max_steps: int | None = None
    runners: int = 2
    simulators: int = 2
    learners: int = 1
    placement: str = "copy"
    fragment_decisions: int = 8
    ppo: dict[str, Any] = field(default_factory=dict)
    runner_s: float = 30.0
    server_s: float = 8.0
    learner_s: float = 30.0
    seed: int = 0

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Plan:
        found = json.loads(path.read_text(encoding="utf-8"))
        return replace(cls(**found), tasks=tuple(found["tasks"]))


def configure(plan: Plan) -> Any:
    """RLlib's configuration; each runner has a node for itself, which has the resource "simulator"."""
    from actors.async_ppo_config import AsyncPPOConfig
    from actors.settings import recipe
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import make_simulator
    from benchmarks.chaos_run.recorded import make_recorded

    camera = load_checkpoint(plan.checkpoint).policy.config.backbone.camera_size
    simulator = SimulatorConfig(suite=plan.suite, tasks=plan.tasks, max_steps=plan.max_steps, image_size=camera)
    config: Any = AsyncPPOConfig()
    return (
        config.env_runners(
            num_env_runners=plan.runners, num_envs_per_env_runner=plan.simulators, num_cpus_per_env_runner=0,
            custom_resources_per_env_runner={"simulator": 1}, rollout_fragment_length=plan.fragment_decisions,
        )
        .learners(num_learners=plan.learners)
        .debugging(seed=plan.seed)
        .training(
            **asdict(recipe("tiny", **plan.ppo)), checkpoint=plan.checkpoint, simulator=simulator, run_name="chaos",
            make_simulator=partial(make_recorded, make_simulator, Path(plan.records)), idle_release_s=None,
            policy_placement=plan.placement, runner_timeout_s=plan.runner_s, server_timeout_s=plan.server_s,
            learner_timeout_s=plan.learner_s,
        )
    )  # fmt: skip


def main(plan: Plan, resume: bool) -> None:
    from actors.cluster import connect
    from actors.ppo_run import Budget, Point, finish, train
    from avavla_ray.tracking import track

    class UntilTold(Budget):
        """A budget that `plan.end` uses up as well."""

        def spent(self, point: Point) -> bool:
            return bool(point) and (Path(plan.end).exists() or super().spent(point))

    output = Path(plan.output)
    output.mkdir(parents=True, exist_ok=True)
    connect()
    with track(
        "chaos", kind=KIND, uri=plan.uri, run_key=output.name, resume=resume, output=output,
    ) as tracked:  # fmt: skip
        algorithm, points = train(
            configure(plan), UntilTold(updates=plan.updates or 10**9), output, resume=resume, save_minutes=0.15,
            log=lambda point: tracked.log_metrics(point, step=int(point["total/env_steps"])),
        )  # fmt: skip
        finish(algorithm, points, output, seed=plan.seed, trained_from="")


if __name__ == "__main__":
    main(Plan.read(Path(sys.argv[1])), "--resume" in sys.argv[2:])
