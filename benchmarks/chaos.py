#!/usr/bin/env python
"""Chaos: asynchronous PPO while something at random is killed or stopped every few seconds, and what that costs.

Simulators, runners, the policy server, learner ranks, the MLflow server, nodes of a Ray cluster and the driver itself,
which is then resumed. The simulators write down every episode that ends in them, and that is compared with the ledger
of the run. At full length the same number of updates is then done undisturbed. Ends with status 1 where a finished
episode was lost or told twice, something did not recover, or the success rate is worse than undisturbed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import run_job
from avavla_ray.files import write_json


@dataclass(frozen=True)
class Settings:
    """What to do.

    Attributes:
        quick: strikes of three kinds within seconds, nothing undisturbed; ends within 45 s on 2 cores.
        json: file for the numbers.
        checkpoint: policy to start from; fresh weights of `preset` when left out.
        seconds: of strikes. every: seconds between two of them.
        kinds: of strikes; all of them when left out.
        placement: of the policy. simulators: of each runner.
        ppo: more of the run's settings, as NAME=VALUE of actors/settings.py.
        undisturbed: do the same number of updates without strikes, too.
        folder: for what the runs write; a temporary one when left out.
    """

    quick: bool = False
    json: Path | None = None
    checkpoint: Path | None = None
    preset: str = "tiny"
    suite: str = "tabletop"
    tasks: tuple[int, ...] = (0,)
    max_steps: int | None = 40
    seconds: float = 240.0
    every: float = 5.0
    kinds: tuple[str, ...] = ()
    placement: Literal["copy", "server"] = "server"
    num_runners: int = 2
    simulators: int = 2
    learners: int = 1
    update_decisions: int = 64
    ppo: tuple[str, ...] = ()
    undisturbed: bool = True
    folder: Path | None = None
    seed: int = 0


QUICK = ("kill simulator", "kill runner", "kill learner")
RECOVERY_S = 150.0  # for all parts to be back when the strikes are over


def main(settings: Settings) -> None:
    from avavla_ray.provenance import machine
    from benchmarks.chaos_run.stage import environment

    os.environ.update(environment())
    if settings.quick:
        settings = replace(settings, seconds=8.0, every=2.0, kinds=settings.kinds or QUICK, placement="copy",
                           undisturbed=False)  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        result = {**wreak(settings, settings.folder or Path(temporary)), "machine": machine()}
    for name, value in result.items():
        print(f"{name:28} {value:.2f}" if isinstance(value, float) else f"{name:28} {value}")
    if settings.json is not None:
        write_json(settings.json, result)
    if wrong := mismatches(result):
        raise SystemExit("error: " + "; ".join(wrong))


def wreak(settings: Settings, folder: Path) -> dict[str, Any]:
    """Run, strike and compare."""
    from benchmarks.chaos_run.fresh import fresh_checkpoint
    from benchmarks.chaos_run.strikes import Strike
    from benchmarks.chaos_run.verdict import compare, not_worse, success

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = settings.checkpoint or fresh_checkpoint(settings.preset, settings.seed, folder / "start")
    begun = time.monotonic()
    struck = run(settings, checkpoint, folder / "struck", None)
    strikes, ledger = struck["strikes"], struck["ledger"]
    # Nobody hears any more of what ends after the last update.
    end = Strike("end run", struck["last_update"], doomed=frozenset(note["pid"] for note in struck["records"]))
    recoveries = sorted(strike.recovered_s for strike in strikes if strike.recovered_s is not None)
    result: dict[str, Any] = {
        "kills": len(strikes), **compare(struck["records"], ledger, [*strikes, end]),
        "recovery_p50_s": quantile(recoveries, 0.5), "recovery_p95_s": quantile(recoveries, 0.95),
        "unrecovered": len(strikes) - len(recoveries), "updates": struck["updates"], "mlflow_runs": struck["runs"],
        "updates_missing_in_mlflow": struck["missing"], "suite": settings.suite, "placement": settings.placement,
    }  # fmt: skip
    for kind in sorted({strike.kind for strike in strikes}):
        of_kind = [strike.recovered_s for strike in strikes if strike.kind == kind and strike.recovered_s is not None]
        result[f"recovery_s.{kind}"] = max(of_kind, default=float("nan"))
    if settings.undisturbed:
        quiet = run(settings, checkpoint, folder / "quiet", struck["updates"])
        last = max(20, min(len(ledger), len(quiet["ledger"])) // 3)
        ours, theirs = success(ledger, last), success(quiet["ledger"], last)
        result |= {
            "success_rate": ours[0] / max(1, ours[1]), "success_rate_undisturbed": theirs[0] / max(1, theirs[1]),
            "success_episodes": last, "success_not_worse": not_worse(ours, theirs),
            "seconds_an_update": struck["seconds"] / struck["updates"],
            "seconds_an_update_undisturbed": quiet["seconds"] / quiet["updates"],
        }  # fmt: skip
    result["seconds"] = time.monotonic() - begun
    return result


def run(settings: Settings, checkpoint: Path, folder: Path, updates: int | None) -> dict[str, Any]:
    """One run on a cluster of its own: struck, or with a number of `updates` undisturbed."""
    from benchmarks.chaos_run.driver import Plan
    from benchmarks.chaos_run.processes import Family
    from benchmarks.chaos_run.stage import Driver, Nodes, Store, end_all
    from benchmarks.chaos_run.strikes import KINDS, Striker, Watch

    folder.mkdir()
    before, output = Family().members, folder / "run"
    kinds = tuple(kind for kind in settings.kinds or KINDS
                  if settings.placement == "server" or not kind.endswith("server"))  # fmt: skip
    store = Store(folder) if any(kind.endswith("mlflow") for kind in kinds) and updates is None else None
    plan = Plan(
        str(output), str(folder / "simulators.jsonl"), str(folder / "end"),
        f"sqlite:///{folder}/mlflow.db" if store is None else store.uri, str(checkpoint), updates,
        suite=settings.suite, tasks=settings.tasks, max_steps=settings.max_steps, runners=settings.num_runners,
        simulators=settings.simulators, learners=settings.learners, placement=settings.placement,
        ppo={"update_decisions": settings.update_decisions, "minibatch_decisions": 32, **named(settings.ppo)},
        seed=settings.seed,
    )  # fmt: skip
    if store is not None:
        store.start()
    nodes = Nodes(settings.num_runners)
    try:
        if store is not None:
            store.wait()
        watch = Watch(Path(plan.records), output / "curve.jsonl")
        striker = Striker(kinds, watch, nodes, store, Driver(plan, folder, nodes.cluster.address), settings.seed)
        if updates is None:
            strike(striker, settings.seconds, settings.every, Path(plan.end))
        until(striker, lambda: striker.driver.ended, 600.0)
        watch.look()
        return {
            **told(plan, output),
            "records": watch.notes,
            "strikes": striker.strikes,
            "last_update": watch.updates[-1],
        }
    finally:
        if store is not None:
            store.close()
        nodes.close()
        end_all(before)


def strike(striker: Any, seconds: float, every: float, end: Path) -> None:
    """Once the run learns, strike it for so long, each kind at least once; when it has recovered, tell it to end."""
    until(striker, lambda: len(striker.watch.updates) > 1, 300.0)
    over, late = after(seconds), after(seconds + RECOVERY_S)
    while not over() or not (striker.done or late()):
        striker.strike()
        until(striker, after(every), every + 60.0)
    late = after(RECOVERY_S)
    until(striker, lambda: late() or not striker.open, RECOVERY_S + 60.0)
    end.touch()


def after(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed since this call."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def until(striker: Any, condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        striker.look()
        if time.monotonic() > end:
            raise TimeoutError(f"the run is stuck: see {striker.driver.log}")
        time.sleep(0.3)  # a look at all processes is not free


def told(plan: Any, output: Path) -> dict[str, Any]:
    """What the run itself says of it."""
    from actors.ledger import read_ledger
    from avavla_ray.tracking import client_of, find_runs
    from benchmarks.chaos_run.driver import KIND

    curve = [json.loads(line) for line in (output / "curve.jsonl").read_text(encoding="utf-8").splitlines()]
    runs = find_runs(uri=plan.uri, kind=KIND)
    history = client_of(plan.uri).get_metric_history(runs[0].info.run_id, "total/updates")
    logged = {int(entry.value) for entry in history}
    return {
        "ledger": read_ledger(output / "episodes.jsonl"), "updates": int(curve[-1]["total/updates"]),
        "seconds": curve[-1]["total/seconds"], "runs": len(runs),
        "missing": len({int(point["total/updates"]) for point in curve} - logged),
    }  # fmt: skip


def named(words: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE each, the value as in JSON."""
    pairs = [word.partition("=") for word in words]
    return {name: json.loads(value) for name, _, value in pairs}


def quantile(values: list[float], share: float) -> float:
    return values[round(share * (len(values) - 1))] if values else float("nan")


def mismatches(result: dict[str, Any]) -> list[str]:
    """What of it is not as it should be."""
    wrong = [
        f"{result[name]} {what}"
        for name, what in (
            ("episodes_lost", "finished episodes were lost"), ("episodes_double", "episodes were told twice"),
            ("episodes_false", "episodes were told that no simulator saw"), ("unrecovered", "strikes were for good"),
            ("updates_missing_in_mlflow", "updates are missing in MLflow"),
        )
        if result[name]
    ]  # fmt: skip
    if result["mlflow_runs"] != 1:
        wrong.append(f"the run is {result['mlflow_runs']} runs in MLflow")
    if not result.get("success_not_worse", True):
        wrong.append("its success rate is below that of the undisturbed run")
    return wrong


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    run_job(main, Settings)
