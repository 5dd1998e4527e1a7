"""A run of asynchronous PPO in an output folder: budget, progress, checkpoints to resume from, learning curve.

OUTPUT/
  settings.json      what the run was started with; --resume must agree
  checkpoint/        the final policy, in the one format of policy/checkpoint.py
  rllib/             RLlib checkpoints, the newest two
  curve.jsonl        a line an update; learning_curve.png draws it
  episodes.jsonl     a line an episode, written as soon as the driver hears of its end
  lag.png            how old the data were that it learned from
  profile.*          with `profile`: where every kind of process spent its time, as numbers, text and picture
  summary.json       totals and provenance, written at the end
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.gauges import Gauges
from actors.metrics import PROFILE, flat, log_timings
from actors.settings import PPOSettings
from actors.stopping import Stopped, Stopping
from avavla_ray import timing
from avavla_ray.errors import InputError
from avavla_ray.evaluation.lag_plot import plot_lag
from avavla_ray.evaluation.learning_curve import plot_learning_curve
from avavla_ray.evaluation.timing_tree import describe, plot_timings
from avavla_ray.files import append_line, atomic_path, remove_temporaries, write_json, write_text
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.progress import Progress
from avavla_ray.provenance import provenance
from avavla_ray.storage.names import named
from avavla_ray.timing import span

CHECKPOINTS, CURVE, EPISODES, POSITION = "rllib", "curve.jsonl", "episodes.jsonl", "position.json"
CURVES, PROFILES = ("learning_curve.png", "lag.png"), ("profile.json", "profile.txt", "profile.png")
KEEP = 2

Point = dict[str, float]


@dataclass(frozen=True)
class Budget:
    """When training ends: with the first of these that is used up; None is no limit."""

    env_steps: int | None = None
    minutes: float | None = None
    updates: int | None = None

    def __post_init__(self) -> None:
        if all(limit is None for limit in asdict(self).values()):
            raise InputError("training has no end: give environment steps, minutes, or updates")
        for name, limit in asdict(self).items():
            if limit is not None and limit <= 0:
                raise InputError(f"{name.replace('_', ' ')} {limit}: training needs more than none")

    def used(self, point: Point) -> dict[str, tuple[float, float]]:
        """(used, limit) of each limit that is set."""
        spent = {
            "environment steps": (point.get("total/env_steps", 0.0), self.env_steps),
            "seconds": (point.get("total/seconds", 0.0), None if self.minutes is None else 60 * self.minutes),
            "updates": (point.get("total/updates", 0.0), self.updates),
        }
        return {unit: (done, float(limit)) for unit, (done, limit) in spent.items() if limit is not None}

    def spent(self, point: Point) -> bool:
        return any(done >= limit for done, limit in self.used(point).values())


def quiet() -> None:
    """RLlib warns about its own API generations."""
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)


def train(
    config: AsyncPPOConfig,
    budget: Budget,
    output: Path,
    *,
    resume: bool = False,
    save_minutes: float = 5.0,
    log: Callable[[Point], None] = lambda point: None,
) -> tuple[AsyncPPO, list[Point]]:
    """Train until the budget is used up.

    Args:
        resume: go on from the newest checkpoint in `output`, or from the start where there is none yet.
        log: called with every update's numbers.

    Returns:
        The algorithm, still running (call `stop` when its policy has been taken), and the learning curve's points.

    Raises:
        InputError: what runners or learners refuse.
        SystemExit: it was told to end (SIGTERM), and has saved what it had.
    """
    quiet()
    remove_temporaries(output / CHECKPOINTS)  # engine states of many gigabytes, maybe
    remove_temporaries(output)
    algorithm = config.training(ledger=str(output.absolute() / EPISODES)).build_algo()
    try:
        points: list[Point] = []
        if resume:
            points = _restore(algorithm, output)
        else:
            for name in (CURVE, EPISODES):
                (output / name).unlink(missing_ok=True)
        with Stopping() as stopping:
            algorithm.check = stopping.check
            try:
                _run(algorithm, budget, output, points, save_minutes, log)
            except Stopped:
                _leave(algorithm, output, points)
    except BaseException:
        algorithm.stop()
        raise
    return algorithm, points


def _leave(algorithm: AsyncPPO, output: Path, points: list[Point]) -> NoReturn:
    """Save what there is, in the few seconds that whoever sent SIGTERM gives."""
    if points:
        _save(algorithm, output, points[-1])
        algorithm.take_deliveries()
        _write_profile(output, points[-1])
        said = f"saved after update {algorithm.iteration}; --resume goes on from there"
    else:
        said = "no update had ended yet, so there is nothing to save"
    print(f"told to end (SIGTERM): {said}", flush=True)
    raise SystemExit(1)


def finish(algorithm: AsyncPPO, points: list[Point], output: Path, *, seed: int, trained_from: str) -> dict[str, Any]:
    """Write the final policy, the learning curve and the summary, and stop the algorithm.

    Args:
        trained_from: digest of the checkpoint that training started from.

    Returns:
        What summary.json holds.
    """
    group = algorithm.learner_group
    described = provenance(
        seed=seed, simulator=algorithm.simulator_provenance, trained_from=trained_from,
        ppo=asdict(PPOSettings.of(algorithm.config)),
    )  # fmt: skip
    last = points[-1]
    save_checkpoint(
        output / "checkpoint", group.policy(), group.statistics, stage="ppo", provenance=described,
        extra={"version": group.version, "env_steps": int(last["total/env_steps"]), "held_out": group.held_out},
        origin=algorithm.config.checkpoint,
    )  # fmt: skip
    algorithm.take_deliveries()
    algorithm.stop()
    plot_learning_curve(output / "learning_curve.png", points, f"PPO, {output.name}")
    plot_lag(output / "lag.png", points, f"Staleness, {output.name}")
    _write_profile(output, last)
    summary = {
        "checkpoint": named(output / "checkpoint"),
        **{name.removeprefix("total/"): value for name, value in last.items() if name.startswith("total/")},
        "first": {name: value for name, value in points[0].items() if name.startswith("rollout/")},
        "last": {name: value for name, value in last.items() if not name.startswith("total/")},
        "quarantined_tasks": {str(task): reason for task, reason in algorithm.watchdog.quarantined.items()},
        "provenance": described,
    }
    write_json(output / "summary.json", summary)
    rate = "no episode ended" if "rollout/success_rate" not in last else f"success {last['rollout/success_rate']:.2f}"
    print(
        f"\n{int(last['total/updates'])} updates, {int(last['total/env_steps'])} environment steps in "
        f"{last['total/seconds'] / 60:.1f} minutes ({last['total/env_steps'] / last['total/seconds']:.0f} a second); "
        f"{rate} over the last episodes, {last['rollout/mean_latent_steps']:.2f} latent steps\n"
        f"policy in {output / 'checkpoint'}, learning curve in {output / 'learning_curve.png'}",
        flush=True,
    )
    return summary


def _run(
    algorithm: AsyncPPO, budget: Budget, output: Path, points: list[Point], save_minutes: float,
    log: Callable[[Point], None],
) -> None:  # fmt: skip
    algorithm.start_runners()  # no part of a run's time, which pauses between its resumptions are not either
    point: Point = points[-1] if points else {}
    begun = time.monotonic() - point.get("total/seconds", 0.0)
    saved = time.monotonic()
    unit, (done, limit) = next(iter(budget.used(point).items()))
    gauges = Gauges(algorithm.config.run_name, point)
    timing.switch(algorithm.config.profile)
    with Progress(int(limit), "ppo", unit, done=int(done)) as progress:
        while not budget.spent(point):
            log_timings(algorithm.metrics, timing.take_seconds("driver"))
            result = algorithm.train()
            before, seconds = point, time.monotonic() - begun
            point = {**flat(result), "total/updates": float(algorithm.iteration), "total/seconds": seconds}
            point |= _speeds(before, point)
            points.append(point)
            with span("telling"):
                append_line(output / CURVE, json.dumps(point))
                gauges.show(point)
                log(point)
            done = min(budget.used(point)[unit])
            progress.advance(int(done) - progress.count, **_notes(point))
            if time.monotonic() - saved >= 60 * save_minutes or len(points) == 1 or budget.spent(point):
                with span("saving"):
                    _save(algorithm, output, point)
                saved = time.monotonic()


def _speeds(before: Point, point: Point) -> Point:
    """Of rollouts since the update before."""
    seconds = max(1e-9, point["total/seconds"] - before.get("total/seconds", 0.0))
    totals = ("env_steps", "decisions")
    grown = {name: point.get(f"total/{name}", 0.0) - before.get(f"total/{name}", 0.0) for name in totals}
    return {f"rollout/{name}_per_s": more / seconds for name, more in grown.items()}


def _notes(point: Point) -> dict[str, float | int | str]:
    """What the progress line shows beside the budget."""
    lags = {int(name.removeprefix("lag/")): share for name, share in point.items() if name.startswith("lag/")}
    kinds = ("simulator_failures", "runner_restarts", "server_restarts", "learner_restarts")
    return {
        "update": int(point["total/updates"]), "env_steps": int(point["total/env_steps"]),
        "env_steps/s": point["rollout/env_steps_per_s"],
        "success": point.get("rollout/success_rate", "not known yet"), "kl": point["learner/kl"],
        "latent_steps": point.get("rollout/mean_latent_steps", "not known yet"),
        "lag": sum(lag * share for lag, share in lags.items()),
        "queue": int(point.get("rollout/queue_decisions", 0)),
        "restarts": int(sum(point.get(f"total/{kind}", 0) for kind in kinds)),
    }  # fmt: skip


def _write_profile(output: Path, point: Point) -> None:
    """Where the time went, if it was looked at."""
    prefix = f"{PROFILE}/"
    timings = {name.removeprefix(prefix): value for name, value in point.items() if name.startswith(prefix)}
    if not timings:
        return
    write_json(output / "profile.json", {"seconds": timings})
    write_text(output / "profile.txt", describe(timings))
    plot_timings(output / "profile.png", timings, f"Where the time went, {output.name}")


def _rows(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a run that was killed may have left half of one behind the last."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _save(algorithm: AsyncPPO, output: Path, point: Point) -> None:
    """An RLlib checkpoint with the position in the run beside it; whole or absent."""
    with atomic_path(output / CHECKPOINTS / f"update_{algorithm.iteration:06d}") as folder:
        algorithm.save_to_path(str(folder.absolute()))
        (folder / POSITION).write_text(json.dumps(point), encoding="utf-8")
    for old in sorted((output / CHECKPOINTS).glob("update_*"))[:-KEEP]:
        shutil.rmtree(old)


def _restore(algorithm: AsyncPPO, output: Path) -> list[Point]:
    """Put the algorithm back to the newest checkpoint; the curve up to there."""
    found = sorted((output / CHECKPOINTS).glob("update_*"))
    if not found:
        print(f"{output} holds no checkpoint yet: starting from the beginning", flush=True)
        (output / CURVE).unlink(missing_ok=True)  # its updates are made again
        return []
    algorithm.restore_from_path(str(found[-1].absolute()))
    position: Point = json.loads((found[-1] / POSITION).read_text(encoding="utf-8"))
    points = [point for point in _rows(output / CURVE) if point["total/updates"] < position["total/updates"]]
    points.append(position)
    write_text(output / CURVE, "".join(json.dumps(point) + "\n" for point in points))
    print(
        f"resumed after update {algorithm.iteration}, {int(position['total/env_steps'])} environment steps", flush=True
    )
    return points
