"""Optimizer state and averaged weights: written at one ZeRO stage and world size, continued at any other."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp

from tests.support import engine_state_ranks as ranks
from tests.support.ports import free_port


def plain_run() -> dict[str, dict[str, torch.Tensor]]:
    """The same training without DeepSpeed, its average kept in float64."""
    objective = ranks.Regression()
    chosen = ranks.SETTINGS["0"]
    optimizer = torch.optim.AdamW(
        [dict(group, params=list(group["params"])) for group in objective.groups()],
        betas=chosen.betas, eps=chosen.epsilon, weight_decay=chosen.weight_decay,
    )  # fmt: skip
    learning = {name: p for name, p in objective.policy.named_parameters() if p.requires_grad}
    average = {name: p.detach().double() for name, p in learning.items()}
    for step, x in enumerate(ranks.batches()):
        for group, rate in zip(optimizer.param_groups, ranks.rates(step), strict=True):
            group["lr"] = rate
        optimizer.zero_grad()
        objective(x).backward()
        torch.nn.utils.clip_grad_norm_(learning.values(), chosen.gradient_clip)
        optimizer.step()
        decay = min(ranks.DECAY, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * p.detach() for name, p in learning.items()}
    moments = {
        f"{n}.{k}": optimizer.state[p][k] for n, p in learning.items() for k in ("exp_avg", "exp_avg_sq", "step")
    }
    weights = dict(objective.policy.state_dict())
    return {
        "weights": weights, "average": {**weights, **{n: a.float() for n, a in average.items()}}, "optimizer": moments
    }  # fmt: skip


@pytest.mark.timeout(180)
def test_training_continues_at_any_stage_world_and_offload(tmp_path):
    mp.spawn(ranks.write, (2, free_port(), str(tmp_path)), nprocs=2)
    for world in (1, 4):
        mp.spawn(ranks.read, (world, free_port(), str(tmp_path)), nprocs=world)
    ends = {path.stem: torch.load(path) for path in tmp_path.glob("end-*.pt")}
    assert len(ends) == len(ranks.SETTINGS) + 2 * len(ranks.PAIRS)
    expected = plain_run()
    for label, end in ends.items():
        assert end["weights"]["table"].dtype == torch.bfloat16
        rtol, atol = (0.05, 0.02) if "bfloat16" in label else (1e-5, 1e-6)
        for part, tensors in expected.items():
            assert end[part].keys() == tensors.keys(), (label, part)
            for name, tensor in tensors.items():
                message = f"{label}: {part} of {name}"
                torch.testing.assert_close(end[part][name], tensor, rtol=rtol, atol=atol, msg=message)
