"""Behaviour cloning survives what kills it: workers, the driver, a full disk; and ends with the very same weights."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
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
from avavla_ray.training.behaviour_cloning import BEST, CHECKPOINT, CloningResult, train
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints
from avavla_ray.training.run_lock import LOCK
from avavla_ray.training.settings import recipe
from tests.support.cloning_kills import has_open, stop_while_writing, torn_steps, wait_for, workers, writer
from tests.support.demonstration_data import make_dataset
from tests.support.processes import adopting_orphans, descendants, wait_until_gone
from tests.support.small_disks import NAMESPACE, REFUSED, can_mount

pytestmark = [pytest.mark.ray, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 30, 3
KEEP = 2
FITTING = 3  # checkpoints that the small disk has room for
RECIPE = f"""
steps = {STEPS}
streams = 4
workers = 2
seed = 3
validations = {STEPS // EVERY}
checkpoints = {STEPS // EVERY}
keep = {STEPS}
max_failures = 1

[augmentation]
shift = 0.05

[[stages]]
kind = "cloning"
share = 0.5
learning_rate = 3e-3

[[stages]]
kind = "latent_warm_up"
share = 0.5
learning_rate = 1e-2
"""


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[dict[str, str]]:
    """That of the jobs; and here as there, Ray Train looks after its workers more often than every 2 seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield {**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)}


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


def assert_same_end(output: Path, whole: CloningResult, *, workers: int = 2) -> None:
    """The policy of the undisturbed run, bit for bit with as many workers; and nothing that was loaded on the way was
    damaged."""
    ours, theirs = load_checkpoint(output / CHECKPOINT), load_checkpoint(whole.checkpoint)
    assert ours.extra["training"]["step"] == theirs.extra["training"]["step"] == STEPS
    assert ours.extra["validation"] == pytest.approx(theirs.extra["validation"], rel=0 if workers == 2 else 1e-3)
    expected, off = theirs.policy.state_dict(), {"rtol": 0, "atol": 0} if workers == 2 else {"rtol": 2e-3, "atol": 2e-4}
    for name, value in ours.policy.state_dict().items():
        torch.testing.assert_close(value, expected[name], **off, msg=name)
    assert not list((output / CHECKPOINTS).glob("damaged-*"))
    assert not list((output / CHECKPOINTS).glob(".*.tmp"))


def steps_in(checkpoints: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))


@pytest.fixture(scope="module")
def hurt(ray_cluster, given) -> Path:
    """The output of a run whose workers were killed.

    Rank 0 in the middle of a checkpoint, after which Ray Train goes on by itself; then one of them whenever it may be,
    which is more than is allowed; then the run is resumed.
    """
    from ray.train import TrainingFailedError

    settings, output = recipe(given / "recipe.toml", keep=KEEP), given / "hurt"
    checkpoints = output / CHECKPOINTS

    def kill() -> None:
        first, step = stop_while_writing(checkpoints, after=2 * EVERY)
        os.kill(first, signal.SIGKILL)
        wait_until_gone({first})
        assert torn_steps(checkpoints) == {step}, "half a checkpoint is left"
        newest = RunCheckpoints(checkpoints).newest(verify=True)
        assert newest is not None
        assert newest.step == step - EVERY, "which nobody takes for one"
        second = wait_for(lambda: writer(checkpoints), "writer after the one that was killed")
        time.sleep(random.uniform(0.0, 2.0))
        os.kill(random.choice(sorted(workers(descendants()) | {second})), signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        with pytest.raises(TrainingFailedError):
            train(settings, preset("tiny"), given / "demos", output)
        killing.result()
    assert steps_in(checkpoints)[-1] < STEPS
    train(settings, preset("tiny"), given / "demos", output, resume=True)
    return output


@pytest.mark.timeout(400)
def test_killed_workers_change_nothing(hurt, whole):
    assert_same_end(hurt, whole)


@pytest.mark.timeout(400)
def test_the_newest_and_the_best_of_the_last_stage_stay(given, hurt, whole):
    manifests = [json.loads(path.read_text()) for path in (given / "whole" / CHECKPOINTS).glob("step-*/manifest.json")]
    assert sorted(each["step"] for each in manifests) == list(range(EVERY, STEPS + 1, EVERY))
    best = min((each["score"], each["step"]) for each in manifests if each["stage"] == 1)[1]
    assert best <= STEPS - KEEP * EVERY, "the best one is not among the newest anyway"
    assert steps_in(hurt / CHECKPOINTS) == [best, *range(STEPS - (KEEP - 1) * EVERY, STEPS + 1, EVERY)]
    for folder in (whole.best, hurt / BEST):
        assert load_checkpoint(folder).extra["training"]["step"] == best


def job(given: Path, output: Path, *more: str, recipe: str = "recipe.toml") -> list[str]:
    return [
        sys.executable, str(ROOT / "jobs" / "bc_libero.py"), "--demos", str(given / "demos"), "--preset", "tiny",
        "--recipe", str(given / recipe), "--output", str(output),
        "--tracking-uri", store(output), *more,
    ]  # fmt: skip


def store(output: Path) -> str:
    """The job's MLflow store, beside its output."""
    return f"sqlite:///{output}.db"


@pytest.mark.timeout(400)
def test_a_killed_driver_is_resumed_in_its_mlflow_run_and_its_workers_write_no_more(environment, given, whole):
    """The dead driver's rank 0 is frozen within a checkpoint, which it goes on with when its successor is there."""
    output = given / "driven"
    checkpoints = output / CHECKPOINTS

    def waiting() -> int | None:
        return next((pid for pid in workers(descendants()) - family if has_open(pid, checkpoints / LOCK)), None)

    with adopting_orphans():
        driver = subprocess.Popen(job(given, output), env=environment, stdout=subprocess.DEVNULL)
        old, step = stop_while_writing(checkpoints, after=2 * EVERY)
        family = descendants()
        driver.kill()
        driver.wait()
        (begun,) = find_runs(uri=store(output), kind="bc")
        before = sorted(path.name for path in checkpoints.iterdir())
        resuming = job(given, output, "--resume")
        with subprocess.Popen(resuming, env=environment, stdout=subprocess.PIPE, text=True) as successor:
            waiter = wait_for(waiting, "worker that waits for the frozen one's lock")
            time.sleep(0.5)
            assert writer(checkpoints) == old, "the dead driver's worker is alive and may write"
            assert sorted(path.name for path in checkpoints.iterdir()) == before, "so nobody else does"
            os.kill(old, signal.SIGCONT)
            # Ray ends the workers of a dead driver within seconds, unless somebody has adopted them, as we have.
            time.sleep(5.0)
            with contextlib.suppress(ProcessLookupError):
                os.kill(old, signal.SIGKILL)
            wait_until_gone({old})
            out, _ = successor.communicate()
            assert successor.returncode == 0
            assert f"process {waiter} " in (checkpoints / LOCK).read_text()
    resumed = re.search(r"resumed at step (\d+) \(\w+\), saved by 2 worker\(s\), on 2", out)
    assert int(resumed[1]) in (step - EVERY, step), "the latter if the old worker had time to finish it"
    assert steps_in(checkpoints) == list(range(EVERY, STEPS + 1, EVERY)), "each once, by one of them"
    assert_same_end(output, whole)
    (ended,) = find_runs(uri=store(output), kind="bc")
    assert (begun.info.run_id, begun.info.status) == (ended.info.run_id, "RUNNING")
    assert ended.info.status == "FINISHED"
    assert ended.data.metrics["train/fraction"] == 1.0


@pytest.mark.timeout(400)
def test_a_full_disk_leaves_out_checkpoints_and_the_run_ends_once_there_is_room(environment, given, whole):
    output, recipe = given / "small", given / "once.toml"
    recipe.write_text(RECIPE.replace("max_failures = 1", "max_failures = 0"))
    if not can_mount():
        pytest.skip(REFUSED)
    output.mkdir()
    command = job(given, output, "--workers", "1", recipe=recipe.name)
    written = (given / "whole" / CHECKPOINTS).glob(f"step-{EVERY:09d}/**/*")
    size = FITTING * sum(path.stat().st_size + 4096 for path in written) + 64_000
    script = f"""
        mount -t tmpfs -o size={size} tmpfs {output}
        {shlex.join(command)} > {output}.out 2> {output}.err
        echo $?
        cp -a {output} {given}/full
        mount -o remount,size=64m {output}
        {shlex.join([*command, "--resume"])} > {output}.resumed
        echo $?
        cp -a {output} {given}/freed
    """
    done = subprocess.run([*NAMESPACE, script], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    out, errors = Path(f"{output}.out").read_text(), Path(f"{output}.err").read_text()
    assert done.stdout.split() == ["2", "0"]
    full = f"no space left on the disk that holds {output}/{CHECKPOINTS}: free some and resume the run"
    failed = [int(step) for step in re.findall(rf"no checkpoint at step (\d+): {full}; training goes on", out)]
    assert failed == list(range((FITTING + 1) * EVERY, STEPS, EVERY))
    assert f"training stopped: {full}\n" in out
    assert errors.splitlines()[-1] == f"error: {full}; with --resume it goes on from step {FITTING * EVERY}"
    assert "avavla_ray" not in errors.rpartition("error: ")[0], "no traceback of ours"
    assert steps_in(given / "full" / CHECKPOINTS) == list(range(EVERY, FITTING * EVERY + 1, EVERY))
    newest = RunCheckpoints(given / "full" / CHECKPOINTS).newest(verify=True)
    assert newest.step == FITTING * EVERY
    assert f"resumed at step {newest.step} " in Path(f"{output}.resumed").read_text()
    assert_same_end(given / "freed", whole, workers=1)
