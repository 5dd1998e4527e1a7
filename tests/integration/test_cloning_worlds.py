"""What behaviour cloning learns depends on no ZeRO stage, number of workers, micro-batches or interruption."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avavla_ray.demonstrations.augmentation import Augmentation
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.training.cloning_state import POLICY
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints
from avavla_ray.training.settings import CloningSettings, parse_stages, recipe
from tests.support import cloning_ranks
from tests.support.demonstration_data import make_dataset
from tests.support.ports import free_port
from tests.support.ranks import run_ranks

STEPS = 8
STAGES = ("cloning=3@3e-3", "latent_warm_up=2@3e-3", "exit_calibration=3@1e-1")


def settings_of(**changes: object) -> CloningSettings:
    return recipe(
        "tiny", steps=STEPS, streams=9, stages=parse_stages(*STAGES), average=0.9, keep=STEPS,
        validations=1, held_out_limit=1, augmentation=Augmentation(shift=0.05), proprio_noise=0.05,
        **{"checkpoints": 1, **changes},
    )  # fmt: skip


def run(world: int, cases: list[tuple[CloningSettings, str, str]]) -> None:
    run_ranks(cloning_ranks.work, (world, free_port(), cases), world)


def losses(folder: Path, world: int) -> dict[int, float]:
    return {int(step): loss for step, loss in json.loads((folder / f"losses-{world}.json").read_text()).items()}


def final_policy(folder: Path) -> dict[str, torch.Tensor]:
    newest = RunCheckpoints(folder / CHECKPOINTS).newest(verify=True)
    assert newest is not None
    assert newest.step == STEPS
    return load_checkpoint(newest.path / POLICY).policy.state_dict()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_zero_stage_world_and_interruption_learns_the_same(tmp_path):
    demos = str(make_dataset(tmp_path / "demos", episodes=8))
    one = {f"1-{stage}": settings_of(zero_stage=stage) for stage in (0, 1, 2, 3)}
    one["1-2-accumulated"] = settings_of(zero_stage=2, accumulation=3)
    two = {f"2-{stage}": settings_of(zero_stage=stage, workers=2) for stage in (0, 1, 3)}
    two["2-2"] = settings_of(zero_stage=2, workers=2, checkpoints=STEPS)  # is resumed at four of them
    two["2-3-offloaded"] = settings_of(zero_stage=3, workers=2, offload="all", accumulation=2)
    for world, cases in ((1, one), (2, two)):
        run(world, [(settings, demos, str(tmp_path / name)) for name, settings in cases.items()])
    reference, weights = losses(tmp_path / "1-0", 1), final_policy(tmp_path / "1-0")
    assert sorted(reference) == list(range(1, STEPS + 1))
    assert min(reference[step] for step in (2, 3)) < 0.95 * reference[1]
    for name in (*one, *two):
        found = losses(tmp_path / name, int(name[0]))
        assert found == pytest.approx(reference, rel=2e-4), name
        for key, value in final_policy(tmp_path / name).items():
            torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-4, msg=f"{name} {key}")

    # Saved by 2 workers at ZeRO 2, in the middle of every stage; continued by 1 and by 4, at other stages.
    resumed = {1: [], 4: []}
    for world, stage, step in ((1, 0, 2), (1, 3, 7), (4, 2, 4), (4, 3, 6)):
        output = tmp_path / f"resumed-{world}-{step}"
        shutil.copytree(tmp_path / "2-2", output)
        for path in (output / CHECKPOINTS).glob("step-*"):
            if int(path.name.split("-")[1]) > step:
                shutil.rmtree(path)
        resumed[world].append((replace(settings_of(), workers=world, zero_stage=stage), demos, str(output)))
    for world, cases in resumed.items():
        run(world, cases)
        for _, _, output in cases:
            found = losses(Path(output), world)
            assert sorted(found) == list(range(int(output.rpartition("-")[2]) + 1, STEPS + 1))
            assert found == pytest.approx({step: reference[step] for step in found}, rel=2e-4), output
            for key, value in final_policy(Path(output)).items():
                torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-4, msg=f"{output} {key}")
