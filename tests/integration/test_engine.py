"""DeepSpeed engines: every ZeRO stage trains alike, and saves and loads exactly."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from avavla_ray.errors import InputError
from avavla_ray.training.engine import EngineSettings, initialise_engine
from tests.support import engine_ranks
from tests.support.ports import free_port
from tests.support.ranks import run_ranks


@pytest.mark.timeout(180)
def test_all_stages_and_worlds_train_alike_and_resume_exactly(tmp_path):
    for world, stages in ((1, (0, 2, 3)), (2, (1, 2, 3))):
        for stage in stages:
            shutil.rmtree(tmp_path / str(stage), ignore_errors=True)
        islands = (2, 3) if world > 1 else ()
        run_ranks(engine_ranks.work, (world, stages, islands, free_port(), str(tmp_path)), world)
    weights = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("weights-*.pt")}
    assert len(weights) == 6
    first = weights["weights-1-0"]
    for name, state in weights.items():
        for key, value in first.items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5, msg=f"{name} {key}")
    torch.manual_seed(0)
    untrained = engine_ranks.Regression().policy.state_dict()
    changed = {name for name, value in first.items() if not torch.equal(value, untrained[name])}
    assert changed == set(first) - {"0.bias", "scale"}
    for stage in (2, 3):  # what computes in float32 is also gathered and reduced in it
        exact, found = (torch.load(tmp_path / f"island-{name}-{stage}.pt") for name in ("float32", "bfloat16"))
        for key, value in exact.items():
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7, msg=f"stage {stage} {key}")


@pytest.mark.timeout(120)
def test_bfloat16_computes_in_it_and_keeps_weights_and_beliefs_in_float32(tmp_path):
    run_ranks(engine_ranks.work_precisions, (free_port(), str(tmp_path / "losses.json")), 1)
    losses = json.loads((tmp_path / "losses.json").read_text())
    exact, rounded = torch.tensor(losses["float32"]), torch.tensor(losses["bfloat16"])
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0)
    assert exact[-2] < 0.8 * exact[0]


def test_parameters_must_be_accounted_for():
    module = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="bias requires a gradient but is in no group"):
        initialise_engine(module, [{"params": [module.weight], "lr": 1.0}], EngineSettings())
    module.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="bias is frozen but in a group"):
        initialise_engine(module, [{"params": module.parameters(), "lr": 1.0}], EngineSettings())
    scalar = nn.Module()
    scalar.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match="scale has no dimensions"):
        initialise_engine(scalar, [{"params": [scalar.scale], "lr": 1.0}], EngineSettings())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"zero_stage": 4}, "ZeRO stage 4"),
        ({"precision": "float8"}, "float8"),
        ({"accumulation": 0}, "0 accumulation"),
        ({"offload": "disk"}, "unknown offload 'disk'"),
        ({"offload": "optimizer", "zero_stage": 0}, "'optimizer' at ZeRO stage 0: it needs stage 1 or more"),
        ({"offload": "all", "zero_stage": 2}, "'all' at ZeRO stage 2: it needs stage 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        EngineSettings(**wrong)
