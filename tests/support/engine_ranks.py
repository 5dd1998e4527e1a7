"""What the ranks of the engine test do; importable, so that spawned processes find it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import preset
from avavla_ray.policy.float32 import float32_island
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.training.engine import (
    EngineSettings,
    full_state,
    initialise_engine,
    load_engine,
    save_engine,
    set_learning_rates,
)
from avavla_ray.training.engine_shares import masters
from avavla_ray.training.objective import CloningObjective, learning_parameters
from avavla_ray.training.stages import PARTS

STEPS = 6


class Regression(nn.Module):
    """Fits y = sum(x) with a part that is frozen and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1))
        self.policy.register_buffer("scale", torch.tensor([2.0]))
        self.policy[0].bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.policy.scale * self.policy(x) - x.sum(1, keepdim=True)).square().mean()

    def groups(self) -> list[dict]:
        late = [p for layer in list(self.policy)[1:] for p in layer.parameters()]
        return [{"params": [self.policy[0].weight], "lr": 0.0}, {"params": late, "lr": 0.0}]


class Island(Regression):
    """Computes in float32 whatever the engine does."""

    @float32_island
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def build(stage: int, objective: Regression | None = None, precision: str = "float32"):
    torch.manual_seed(0)
    objective = objective or Regression()
    settings = EngineSettings(zero_stage=stage, gradient_clip=0.5, precision=precision)
    torch.use_deterministic_algorithms(True)  # memory that nobody wrote to is NaN
    try:
        return initialise_engine(objective, objective.groups(), settings)
    finally:
        torch.use_deterministic_algorithms(False)


def batches(rank: int, world: int) -> list[Tensor]:
    """Every rank's rows of the same batches."""
    source = torch.Generator().manual_seed(1)
    return [torch.randn(8, 4, generator=source)[rank::world] for _ in range(STEPS)]


def fit(engine, data: list[Tensor]) -> None:
    for step, x in enumerate(data):
        set_learning_rates(engine, [1e-2, 3e-3 * (step + 1)])
        engine.backward(engine(x))
        engine.step()


def work(
    rank: int, world: int, stages: tuple[int, ...], islands: tuple[int, ...], port: int, folder: str
) -> None:  # fmt: skip
    """Train half-way, save, train on; load into a fresh engine, train on too: both must end alike."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    data = batches(rank, world)
    for stage in stages:
        engine = build(stage)
        fit(engine, data[: STEPS // 2])
        save_engine(engine, f"{folder}/{stage}", {"step": STEPS // 2})
        fit(engine, data[STEPS // 2 :])
        assert all(master.isfinite().all() for master in masters(engine)), stage
        everywhere = full_state(engine, everywhere=True)
        at_first = full_state(engine)
        assert (at_first is None) == (rank > 0)
        engine.destroy()

        again = build(stage)
        assert load_engine(again, f"{folder}/{stage}") == {"step": STEPS // 2}
        fit(again, data[STEPS // 2 :])
        resumed = full_state(again, everywhere=True)
        again.destroy()
        assert everywhere.keys() == resumed.keys() == Regression().policy.state_dict().keys()
        for name, value in everywhere.items():
            assert torch.equal(value, resumed[name]), (stage, name)
        if rank == 0:
            torch.save(everywhere, Path(folder) / f"weights-{world}-{stage}.pt")
    train_islands(rank, world, islands, folder)
    torch.distributed.destroy_process_group()


def train_islands(rank: int, world: int, stages: tuple[int, ...], folder: str) -> None:
    """Train an island in both precisions; the first rank keeps the weights."""
    for stage in stages:
        for precision in ("float32", "bfloat16"):
            torch.manual_seed(0)
            engine = build(stage, Island(), precision)
            fit(engine, batches(rank, world))
            weights = full_state(engine)
            engine.destroy()
            if rank == 0:
                torch.save(weights, Path(folder) / f"island-{precision}-{stage}.pt")


def clone_in(precision: str) -> list[float]:
    """Losses of six cloning steps of a tiny policy in one engine, the latent loop in every second."""
    torch.manual_seed(0)
    policy = AvaVlaPolicy(preset("tiny"))
    parameters = learning_parameters(policy, PARTS["cloning"])
    engine = initialise_engine(
        CloningObjective(policy), [{"params": parameters, "lr": 1e-3}], EngineSettings(precision=precision)
    )
    B, T = 4, 2
    batch = {
        "images": torch.randint(0, 256, (B, T, 2, 32, 32, 3), dtype=torch.uint8), "text": torch.ones(B, T, 24).long(),
        "proprio": torch.randn(B, T, 8), "actions": torch.rand(B, T, 8, 7), "mask": torch.ones(B, T, 8).bool(),
        "starts": torch.tensor([[True, False]]).expand(B, T),
    }  # fmt: skip
    losses = []
    for step in range(6):
        loss, belief, _ = engine(batch, policy.initial_belief(B), latent_steps=2 * (step % 2), temperature=1.0)
        engine.backward(loss)
        engine.step()
        losses.append(float(loss))
        assert belief.history.dtype == belief.hidden.dtype == torch.float32
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
    engine.destroy()
    return losses


def work_precisions(rank: int, port: int, file: str) -> None:
    """Write the losses in both precisions to a JSON file."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    losses = {precision: clone_in(precision) for precision in ("float32", "bfloat16")}
    Path(file).write_text(json.dumps(losses), encoding="utf-8")
