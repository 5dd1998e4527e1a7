"""What the ranks of the engine state's test do; importable, so that spawned processes find it."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from torch import Tensor, nn

from actors.rollback import Rollback
from avavla_ray.errors import InputError
from avavla_ray.training.engine import (
    EngineSettings,
    full_state,
    initialise_engine,
    set_learning_rates,
    start_process_group,
)
from avavla_ray.training.engine_state import load_optimizer_state, optimizer_state
from avavla_ray.training.weight_average import WeightAverage

STEPS, HALF, DECAY, CLIP = 6, 3, 0.2, 0.5
SETTINGS = {
    name: EngineSettings(gradient_clip=CLIP, weight_decay=0.01, **chosen)
    for name, chosen in {
        "0": {"zero_stage": 0}, "1": {"zero_stage": 1}, "2": {"zero_stage": 2}, "3": {"zero_stage": 3},
        "1-optimizer": {"zero_stage": 1, "offload": "optimizer"},
        "2-optimizer": {"zero_stage": 2, "offload": "optimizer"},
        "3-optimizer": {"zero_stage": 3, "offload": "optimizer"},
        "3-all": {"zero_stage": 3, "offload": "all"},
        "2-bfloat16": {"zero_stage": 2, "precision": "bfloat16"},
        "3-bfloat16": {"zero_stage": 3, "precision": "bfloat16"},
    }.items()
}  # fmt: skip


# Ranks leave as the world shrinks: DeepSpeed wants every rank to have built the same engines before.
WORLDS = (4, 2, 1)
PLAIN = "plain"


class Policy(nn.Module):
    """Sizes that no number of ranks divides, a frozen bfloat16 weight and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 1))
        self.table = nn.Parameter(torch.tensor([0.3, 0.7, 1.1], dtype=torch.bfloat16), requires_grad=False)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.table.float().sum() * self.layers(x)


class Regression(nn.Module):
    """Fits y = sum(x)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.policy = Policy()

    def forward(self, x: Tensor) -> Tensor:
        return (self.policy(x) - x.sum(1, keepdim=True)).square().mean()

    def groups(self) -> list[dict[str, Any]]:
        first, *rest = self.policy.layers
        return [{"params": first.parameters(), "lr": 0.0}, {"params": nn.Sequential(*rest).parameters(), "lr": 0.0}]


def rates(step: int) -> list[float]:
    return [1e-2, 3e-3 * (step + 1)]


def batches() -> list[Tensor]:
    """The same rows whatever the number of ranks."""
    source = torch.Generator().manual_seed(1)
    return [torch.randn(8, 4, generator=source) for _ in range(STEPS)]


class Run:
    """One rank's engine and average in one of `SETTINGS`."""

    def __init__(self, name: str, rank: int, world: int, weights: dict[str, Tensor] | None = None) -> None:
        gc.freeze()  # DeepSpeed collects garbage at every engine: not among the objects of its imports
        objective = Regression()
        if weights is not None:
            objective.policy.load_state_dict(weights)
        self.engine = initialise_engine(objective, objective.groups(), SETTINGS[name])
        self.average = WeightAverage(self.engine, DECAY)
        self.rows = slice(rank, None, world)

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            set_learning_rates(self.engine, rates(step))
            self.engine.backward(self.engine(batches()[step][self.rows]))
            self.engine.step()
            self.average.update()

    def weights(self) -> dict[str, Tensor]:
        state = full_state(self.engine, everywhere=True, dtype=None)
        assert state is not None
        return state

    def state(self) -> dict[str, Any]:
        """Everything that training goes on from; the optimizer's part at rank 0 only."""
        before = self.weights()
        with self.average.swapped():
            average = self.weights()
            loss = float(self.engine(batches()[0]).detach())
        after = self.weights()
        assert all(torch.equal(before[name], after[name]) for name in before)
        averaged = Regression()
        averaged.policy.load_state_dict(average)
        assert loss == pytest.approx(float(averaged(batches()[0]).detach()), rel=0.02 if self._rounds else 1e-5)
        return {
            "weights": before, "average": average, "count": self.average.count,
            "optimizer": dict(optimizer_state(self.engine)),
        }  # fmt: skip

    @property
    def _rounds(self) -> bool:
        return bool(self.engine.torch_autocast_enabled())


def resume(name: str, rank: int, world: int, state: dict[str, Any]) -> Run:
    run = Run(name, rank, world, state["weights"])
    load_optimizer_state(run.engine, state["optimizer"].__getitem__)
    run.average.load(state["average"].__getitem__)
    run.average.count = state["count"]
    return run


def check_equal(found: dict[str, Any], expected: dict[str, Any], label: str) -> None:
    """Bit by bit; `found` may be of a rank without the optimizer's part."""
    assert found["count"] == expected["count"]
    for part in ("weights", "average", "optimizer"):
        assert found[part].keys() == expected[part].keys() or (part == "optimizer" and not found[part]), label
        for name, value in found[part].items():
            assert value.dtype == expected[part][name].dtype, (label, part, name)
            assert torch.equal(value, expected[part][name]), (label, part, name)


def join(rank: int, world: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    start_process_group(EngineSettings())


def work(rank: int, ports: dict[int, int], folder: str) -> None:
    """The same processes, which start slowly, regroup into ever smaller worlds."""
    larger = None
    for world, port in ports.items():
        if rank < world:
            join(rank, world, port)
            write(rank, world, Path(folder))
            read(rank, world, larger, Path(folder))
            if world == 2:
                check_rollback(rank, world)
                check_refusals(rank, torch.load(Path(folder) / f"half-{PLAIN}.pt"), world)
            deepspeed.comm.destroy_process_group()
        larger = world


def write(rank: int, world: int, folder: Path) -> None:
    """Train half-way in every setting, keep the state, train on; resumed it must end bit for bit alike."""
    for name in SETTINGS:
        half, end = folder / f"half-{name}-{world}.pt", folder / f"end-{name}-{world}.pt"
        run = Run(name, rank, world)
        check_blank(run, rank)
        run.train(0, HALF)
        save(run, half)
        run.train(HALF, STEPS)
        save(run, end)
        run.engine.destroy()
        if world > 1:
            again = resume(name, rank, world, torch.load(half))
            again.train(HALF, STEPS)
            check_equal(again.state(), torch.load(end), name)
            again.engine.destroy()


def save(run: Run, file: Path) -> None:
    state = run.state()
    if run.engine.global_rank == 0:
        torch.save(state, file)
    torch.distributed.barrier()


def read(rank: int, world: int, larger: int | None, folder: Path) -> None:
    """Resume, in every setting, what a larger world wrote in another one; in the largest, what plain PyTorch did."""
    names = list(SETTINGS)
    for i, name in enumerate(names):
        source = PLAIN if larger is None else f"{names[i - world]}-{larger}"
        half = torch.load(folder / f"half-{source}.pt")
        run = resume(name, rank, world, half)
        check_equal(run.state(), half, f"{source} -> {name}")
        run.train(HALF, STEPS)
        save(run, folder / f"end-{source}-{name}-{world}.pt")
        run.engine.destroy()


def check_blank(run: Run, rank: int) -> None:
    """Before its first step an optimizer has no state: it reads as zeros, and loading zeros changes nothing."""
    blank = dict(optimizer_state(run.engine))
    assert len(blank) == (3 * 6 if rank == 0 else 0)
    assert not any(value.any() for value in blank.values())
    zeros = {
        f"{name}.{key}": torch.zeros(p.shape)
        for name, p in Policy().named_parameters()
        for key in ("exp_avg", "exp_avg_sq")
    }
    load_optimizer_state(run.engine, lambda name: zeros.get(name, torch.zeros(())))


def check_refusals(rank: int, state: dict[str, Any], world: int) -> None:
    """A tensor that one rank cannot read is reported by all; none is left waiting."""
    name = "layers.3.weight.exp_avg"
    for wrong, message in (
        (None, f"lacks {name}"),
        (torch.zeros(7, 1), rf"{name} .*shape \(7, 1\) instead of \(1, 7\)"),
    ):
        optimizer = dict(state["optimizer"])
        if rank == world - 1:
            optimizer |= {name: wrong}
            if wrong is None:
                del optimizer[name]
        for setting in ("0", "2", "3"):
            run = Run(setting, rank, world)
            with pytest.raises(InputError, match=message):
                load_optimizer_state(run.engine, optimizer.__getitem__)
            run.engine.destroy()


def check_rollback(rank: int, world: int) -> None:
    """What was learned since is forgotten, at the first step and later, and training goes on as if it had not been."""
    for name in ("0", "1", "2", "3", "3-all"):
        run = Run(name, rank, world)
        for first in (0, HALF):
            before = run.state()
            rollback = Rollback(run.engine)
            run.train(first, first + 1)
            assert any(not torch.equal(value, before["weights"][key]) for key, value in run.weights().items())
            rollback.restore()
            back = run.state()
            for part in ("weights", "optimizer"):
                assert all(torch.equal(back[part][key], value) for key, value in before[part].items()), (name, part)
            run.train(first, first + HALF)
        run.engine.destroy()
