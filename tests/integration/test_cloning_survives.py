"""Behaviour cloning survives what kills it: workers, the driver, a full disk; and ends with the very same weights."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.tracking import find_runs
from avavla_ray.training.behaviour_cloning import CHECKPOINT, CloningResult, train
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints
from avavla_ray.training.run_lock import LOCK
from avavla_ray.training.settings import recipe
from tests.support.cloning_kills import has_open, stop_while_writing, torn_steps, wait_for, workers, writer
from tests.support.demonstration_data import make_dataset
from tests.support.processes import descendants, is_alive, wait_until_gone

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 30, 3
KEEP_ALL = STEPS
RECIPE = f"""
steps = {STEPS}
streams = 4
workers = 2
seed = 3
validations = {STEPS // EVERY}
checkpoints = {STEPS // EVERY}
keep = {KEEP_ALL}
max_failures = 1

[augmentation]
shift = 1

[[stages]]
kind = "cloning"
share = 0.5
learning_rate = 3e-3

[[stages]]
kind = "latent_warm_up"
share = 0.5
learning_rate = 1e-2
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with demonstrations and a recipe."""
    folder = tmp_path_factory.mktemp("survives")
    make_dataset(folder / "demos", episodes=8)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def whole(ray_cluster, given) -> CloningResult:
    """A run that nothing disturbed, with all its checkpoints."""
    return train(recipe(given / "recipe.toml"), preset("tiny"), given / "demos", given / "whole")


def assert_same_end(output: Path, whole: CloningResult) -> None:
    """Bit for bit the policy of the undisturbed run; and nothing that was loaded on the way was damaged."""
    ours, theirs = load_checkpoint(output / CHECKPOINT), load_checkpoint(whole.checkpoint)
    assert ours.extra["training"]["step"] == theirs.extra["training"]["step"] == STEPS
    assert ours.extra["validation"] == theirs.extra["validation"]
    expected = theirs.policy.state_dict()
    for name, value in ours.policy.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not list((output / CHECKPOINTS).glob("damaged-*"))
    assert not list((output / CHECKPOINTS).glob(".*.tmp"))


def steps_in(checkpoints: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))


@pytest.mark.timeout(400)
def test_killed_workers_change_nothing(ray_cluster, given, whole, capsys):
    """The first one dies within a checkpoint, and Ray Train goes on by itself; the second one whenever it may be, which
    is more than is allowed."""
    from ray.train import TrainingFailedError

    settings = recipe(given / "recipe.toml", keep=2)
    output = given / "hurt"
    checkpoints = output / CHECKPOINTS
    torn = []

    def kill() -> None:
        first, step = stop_while_writing(checkpoints, after=2 * EVERY)
        os.kill(first, signal.SIGKILL)
        wait_until_gone({first})
        torn.append(torn_steps(checkpoints))
        assert torn[0] == {step}
        assert RunCheckpoints(checkpoints).newest(verify=True).step == step - EVERY
        successor = wait_for(lambda: writer(checkpoints), "writer after the one that was killed")
        time.sleep(random.uniform(0.0, 2.0))
        os.kill(random.choice(sorted(workers(descendants()) | {successor})), signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        with pytest.raises(TrainingFailedError):
            train(settings, preset("tiny"), given / "demos", output)
        killing.result()
    assert steps_in(checkpoints)[-1] >= min(torn[0]) - EVERY
    train(settings, preset("tiny"), given / "demos", output, resume=True)
    assert_same_end(output, whole)


def test_the_newest_and_the_best_of_the_last_stage_stay(given, whole):
    everything = RunCheckpoints(given / "whole" / CHECKPOINTS)._all()
    assert [stored.step for stored in reversed(everything)] == list(range(EVERY, STEPS + 1, EVERY))
    print([(stored.step, stored.stage, stored.score) for stored in everything])
    last = [stored for stored in everything if stored.stage == 1]
    best = min(last, key=lambda stored: stored.score)
    assert best.step < STEPS - EVERY, "the best one is not among the newest anyway"
    assert load_checkpoint(whole.best).extra["training"]["step"] == best.step
    assert load_checkpoint(given / "hurt" / "best").extra["training"]["step"] == best.step
    assert steps_in(given / "hurt" / CHECKPOINTS) == [best.step, STEPS - EVERY, STEPS]


def job(given: Path, output: Path, *more: str, recipe: str = "recipe.toml") -> list[str]:
    return [
        sys.executable, str(ROOT / "jobs" / "bc_libero.py"), "--demos", str(given / "demos"), "--preset", "tiny",
        "--recipe", str(given / recipe), "--output", str(output),
        "--tracking-uri", f"sqlite:///{given}/{output.name}.db", *more,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)}


@pytest.mark.timeout(400)
def test_a_killed_driver_is_resumed_and_its_workers_write_no_more(given, whole):
    output = given / "driven"
    checkpoints = output / CHECKPOINTS
    driver = subprocess.Popen(job(given, output), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    old, step = stop_while_writing(checkpoints, after=2 * EVERY)
    driver.kill()
    driver.communicate()
    before = sorted(path.name for path in checkpoints.iterdir())
    with subprocess.Popen(
        job(given, output, "--resume"), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as successor:
        def waiting() -> int | None:
            return next((pid for pid in workers(descendants()) if has_open(pid, checkpoints / LOCK)), None)
        waiter = wait_for(waiting, "worker that waits for the frozen one's lock")
        time.sleep(1.0)
        assert is_alive(waiter)
        assert sorted(path.name for path in checkpoints.iterdir()) == before
        os.kill(old, signal.SIGCONT)
        wait_until_gone({old})
        out, _ = successor.communicate()
    print(out)
    assert successor.returncode == 0
    assert f"resumed at step {step - EVERY} (cloning), saved by 2 worker(s), on 2" in out
    assert_same_end(output, whole)
    assert steps_in(checkpoints) == list(range(EVERY, STEPS + 1, EVERY))
    (run,) = find_runs(uri=f"sqlite:///{given}/driven.db", kind="bc")
    assert run.info.status == "FINISHED"
