#!/usr/bin/env python
"""Faults of every kind in real simulators while they are played: what is lost, what is left behind, how long it takes.

Several simulators, each in its own process, are played by a policy with fresh weights; at every 20th chunk one of them
is struck by the next fault of the list in avavla_ray/simulators/isolated/faults.py. The simulators' processes write
down every episode that ends in them, and that is compared with what was reported. Ends with status 1 where something
was lost, told wrongly or left behind.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import run_job
from avavla_ray.files import write_json


@dataclass(frozen=True)
class Settings:
    """What to do.

    Attributes:
        quick: 48 chunks, a fault at every 8th, none of those that cost a deadline; ends within 45 s on 2 cores.
        json: file for the numbers.
        chunks: in all simulators together. every: chunks between two faults.
        max_steps: limit of an episode, so that many end between the faults.
        faults: names of faults; all of them when left out.
        step_s, reset_s: deadlines. A hang costs one of them.
    """

    quick: bool = False
    json: Path | None = None
    chunks: int = 500
    every: int = 20
    suite: str = "libero_object"
    tasks: tuple[int, ...] = (0, 1)
    assets: str = "bundled"
    render: Literal["reference", "fast"] = "fast"
    simulators: int = 3
    max_steps: int = 24
    faults: tuple[str, ...] = ()
    step_s: float = 2.0
    reset_s: float = 30.0
    seed: int = 0


def traces() -> dict[str, Any]:
    """What a simulator could leave behind: processes, open files, shared memory, graphics in this process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    family = {os.getpid()}
    while children := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= children
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return {
        "processes": len(family) - 1,
        "file_descriptors": len(os.listdir("/proc/self/fd")),
        # Ray's object stores come and go with clusters that others may run on this machine.
        "shared_memory": sorted(name for name in os.listdir("/dev/shm") if not name.startswith("plasma")),
        "graphics_libraries": sum(name in maps for name in ("libEGL", "swrast", "libgallium", "libOSMesa")),
    }


def demonstrate(settings: Settings) -> dict[str, Any]:
    """Play, and compare what was reported with what happened."""
    import numpy as np

    from actors.orders import Order
    from actors.placement import PolicyCopy
    from actors.rollout import Rollout
    from actors.weights import WeightHandle
    from avavla_ray.normalisation import FieldStatistics, Statistics
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy
    from avavla_ray.simulators.base import Observation, SimulatorConfig, SimulatorFailure
    from avavla_ray.simulators.isolated.faults import FAULTS, FaultPlan, make_faulty
    from avavla_ray.simulators.isolated.limits import Limits
    from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
    from avavla_ray.simulators.registry import make_simulator

    recoveries: dict[str, list[float]] = {}

    class Timed(IsolatedSimulator):
        """Clocks the time from a failure to the first observation of the next episode."""

        _broke: tuple[str, float] | None = None

        def finish_chunk(self) -> Any:
            try:
                return super().finish_chunk()
            except SimulatorFailure as failure:
                self._broke = failure.kind, time.perf_counter()
                raise

        def finish_reset(self) -> Observation:
            observation = super().finish_reset()
            if self._broke is not None:
                kind, since = self._broke
                recoveries.setdefault(kind, []).append(time.perf_counter() - since)
                self._broke = None
            return observation

    policy = preset("tiny")
    action, proprio = np.full(policy.action_dim, 0.3), np.ones(policy.proprio_dim)
    statistics = Statistics(
        "none", FieldStatistics.of(np.stack([-action, action])), FieldStatistics.of(np.stack([-proprio, proprio])),
        episodes=0, steps=0,
    )  # fmt: skip
    config = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        image_size=policy.backbone.camera_size, max_steps=settings.max_steps,
    )  # fmt: skip
    limits = Limits(reset_s=settings.reset_s, step_s=settings.step_s, memory_bytes=3 * 2**29)
    before = traces()
    with tempfile.TemporaryDirectory() as folder:
        plan = FaultPlan(Path(folder), settings.every, settings.faults or tuple(FAULTS), hoard_bytes=2**32)
        begun = time.perf_counter()
        rollout = Rollout(
            PolicyCopy(AvaVlaPolicy(policy).eval(), statistics, version=0),
            partial(Timed, partial(make_faulty, make_simulator, plan), limits=limits), config,
            simulators=settings.simulators, slots=settings.simulators, seed=(settings.seed,),
        )  # fmt: skip
        start_s, chunks = time.perf_counter() - begun, 0
        failures, aborted, reported, decisions = Counter[str](), 0, list[Any](), 0
        while chunks < settings.chunks:
            decisions_each = min(5, -(-(settings.chunks - chunks) // settings.simulators))
            fragments, report = rollout.deliver(Order(WeightHandle(0, ()), decisions_each, lockstep=True))
            failures += report.failures
            aborted += report.aborted
            decisions += sum(map(len, fragments))
            reported += [(episode.task, episode.seed, episode.steps) for episode in report.finished]
            chunks = int((Path(folder) / "chunks").read_text(encoding="ascii"))
        quarantined = rollout.watchdog.quarantined
        rollout.close()
        struck = [entry["fault"] for entry in plan.read("faults")]
        ended = [(entry["task"], entry["seed"], entry["steps"]) for entry in plan.read("endings")]
    after = traces()
    seconds = [value for values in recoveries.values() for value in values]
    return {
        "chunks": chunks, "faults": len(struck), "faults_struck": dict(Counter(struck)),
        "failures_reported": dict(failures),
        "failures_expected": dict(Counter(FAULTS[fault] for fault in struck)),
        "decisions_delivered": decisions, "episodes_aborted": aborted,
        "episodes_finished": len(ended), "episodes_reported": len(reported),
        "episodes_lost": len(Counter(ended) - Counter(reported)),
        "episodes_double": len(Counter(reported) - Counter(ended)),
        "tasks_quarantined": len(quarantined),
        "recovery_p50_s": float(np.quantile(seconds, 0.5)), "recovery_p95_s": float(np.quantile(seconds, 0.95)),
        "start_s": start_s, "seconds": time.perf_counter() - begun, "before": before, "after": after,
    }  # fmt: skip


def mismatches(result: dict[str, Any]) -> list[str]:
    """What of a demonstration is not as it should be."""
    wrong = []
    if result["failures_reported"] != result["failures_expected"]:
        wrong.append(f"failures reported {result['failures_reported']}, expected {result['failures_expected']}")
    wrong += [
        f"{result[name]} episodes were {what}"
        for name, what in (("episodes_lost", "lost"), ("episodes_double", "reported twice"))
        if result[name]
    ]
    before, after = result["before"], result["after"]
    wrong += [f"{name} {before[name]} before, {after[name]} after" for name in before if before[name] != after[name]]
    return wrong


def main(settings: Settings) -> None:
    from dataclasses import replace

    from actors.cluster import PROCESS_ENVIRONMENT
    from avavla_ray.provenance import machine

    for name, value in PROCESS_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if settings.quick:
        faults = ("segmentation fault", "killed", "memory", "nan", "constant image", "physics")
        settings = replace(settings, chunks=48, every=8, faults=settings.faults or faults)
    result = {**demonstrate(settings), "suite": settings.suite, "assets": settings.assets, "machine": machine()}
    for name, value in result.items():
        print(f"{name:20} {value:.2f}" if isinstance(value, float) else f"{name:20} {value}")
    if settings.json is not None:
        write_json(settings.json, result)
    if wrong := mismatches(result):
        raise SystemExit("error: " + "; ".join(wrong))


if __name__ == "__main__":
    run_job(main, Settings)
