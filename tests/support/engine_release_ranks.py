"""What the process of the engine release's test does; importable, so that a spawned process finds it."""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.training.engine import EngineSettings, initialise_engine, release, start_process_group
from avavla_ray.training.settings import parse_stages, recipe
from avavla_ray.training.stage_run import StageRun
from tests.support.cloning_batches import noise_window

WIDTH = 400  # ZeRO 3 shards what has over 100,000 numbers
SCALARS = 64  # bytes that may stay: an engine's last losses
SETTINGS = (
    EngineSettings(0), EngineSettings(1, offload="optimizer"), EngineSettings(2), EngineSettings(3),
    EngineSettings(3, offload="all"), EngineSettings(3, precision="bfloat16"),
)  # fmt: skip


class Regression(nn.Module):
    """Fits y = x, with a large frozen weight, a small weight and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
        self.layers[2].requires_grad_(False)
        self.register_buffer("offset", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layers(x) + self.offset - x).square().mean()


def live_bytes() -> int:
    """Of all tensors that Python refers to."""
    gc.collect()
    storages = [each.untyped_storage() for each in gc.get_objects() if issubclass(type(each), Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def work(rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    start_process_group(EngineSettings())
    gc.freeze()  # DeepSpeed collects garbage at every engine: not among the objects of its imports
    for settings in SETTINGS:
        # The second engine is built where the first has been.
        assert check_engine(settings) == check_engine(settings), settings
    for stage in (0, 3):
        check_stage_run(stage)
    torch.distributed.destroy_process_group()


def check_engine(settings: EngineSettings) -> list[float]:
    """Nothing of it stays, though engine, module and optimizer are at hand; then they go, too. Returns its losses."""
    before = live_bytes()
    module = Regression()
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine = initialise_engine(module, [{"params": learning, "lr": 1e-2}], settings)
    losses = []
    for _ in range(3):
        loss = engine(torch.ones(2, WIDTH).cumsum(1) / WIDTH)
        engine.backward(loss)
        engine.step()
        losses.append(float(loss.detach()))
        del loss
    assert losses[2] < losses[1] < losses[0], settings
    held: list[Any] = [engine, engine.optimizer, module]
    assert live_bytes() - before > 4 * 4 * WIDTH**2  # two weights, two moments
    release(engine)
    assert live_bytes() - before < SCALARS, (settings, live_bytes() - before)
    gone = [weakref.ref(each) for each in held]
    del engine, module, learning, held
    gc.collect()
    assert [each() for each in gone] == [None] * 3, settings
    return losses


def check_stage_run(zero_stage: int) -> None:
    """A closed stage keeps nothing, its average included, while the worker still has it and the policy."""
    config = preset("tiny")
    before = live_bytes()
    policy = AvaVlaPolicy(config)
    settings = replace(recipe("tiny", stages=parse_stages("cloning")), zero_stage=zero_stage, average=0.9)
    stage = StageRun(policy.train(), settings, 0)
    batch = {name: part.numpy() for name, part in noise_window(config, settings.streams, 2).items()}
    rows = range(settings.streams)
    belief, metrics = stage.step(batch, policy.initial_belief(len(rows)), step=0, done=0.0, cloned=0.0, mine=rows)
    assert metrics["loss"] > 0
    del batch, belief
    assert live_bytes() - before > 4 * sum(getattr(each, "ds_numel", each.numel()) for each in policy.parameters())
    stage.close()
    assert live_bytes() - before < SCALARS, (zero_stage, live_bytes() - before)
