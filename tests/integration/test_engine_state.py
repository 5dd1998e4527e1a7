"""Optimizer state and averaged weights: written at one ZeRO stage and world size, continued at any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support import engine_state_ranks as ranks
from tests.support.ports import free_port
from tests.support.ranks import run_ranks


def plain_states() -> dict[int, dict[str, Any]]:
    """State half-way and at the end of the same training without DeepSpeed; its average is computed in float64."""
    objective = ranks.Regression()
    chosen = ranks.SETTINGS["0"]
    optimizer = torch.optim.AdamW(
        [dict(group, params=list(group["params"])) for group in objective.groups()],
        betas=chosen.betas, eps=chosen.epsilon, weight_decay=chosen.weight_decay,
    )  # fmt: skip
    learning = {name: p for name, p in objective.policy.named_parameters() if p.requires_grad}
    average = {name: p.detach().double() for name, p in learning.items()}
    states = {}
    for step, x in enumerate(ranks.batches()):
        for group, rate in zip(optimizer.param_groups, ranks.rates(step), strict=True):
            group["lr"] = rate
        optimizer.zero_grad()
        objective(x).backward()
        torch.nn.utils.clip_grad_norm_(learning.values(), chosen.gradient_clip)
        optimizer.step()
        decay = min(ranks.DECAY, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * p.detach() for name, p in learning.items()}
        weights = {name: value.clone() for name, value in objective.policy.state_dict().items()}
        moments = {
            f"{name}.{key}": optimizer.state[p][key].clone()
            for name, p in learning.items()
            for key in ("exp_avg", "exp_avg_sq", "step")
        }
        states[step + 1] = {
            "weights": weights, "average": {**weights, **{name: value.float() for name, value in average.items()}},
            "optimizer": moments, "count": step + 1,
        }  # fmt: skip
    return states


@pytest.mark.timeout(300)
def test_training_continues_at_any_stage_world_and_offload(tmp_path):
    plain = plain_states()
    torch.save(plain[ranks.HALF], tmp_path / f"half-{ranks.PLAIN}.pt")
    run_ranks(ranks.work, ({world: free_port() for world in ranks.WORLDS}, str(tmp_path)), max(ranks.WORLDS))
    ends = {path.stem: torch.load(path) for path in tmp_path.glob("end-*.pt")}
    assert len(ends) == 2 * len(ranks.WORLDS) * len(ranks.SETTINGS)
    expected = plain[ranks.STEPS]
    for label, end in ends.items():
        assert end["weights"]["table"].dtype == torch.bfloat16
        assert end["count"] == expected["count"]
        rtol, atol = (0.05, 0.02) if "bfloat16" in label else (1e-5, 1e-6)
        for part in ("weights", "average", "optimizer"):
            assert end[part].keys() == expected[part].keys(), (label, part)
            for name, tensor in expected[part].items():
                message = f"{label}: {part} of {name}"
                torch.testing.assert_close(end[part][name], tensor, rtol=rtol, atol=atol, msg=message)
