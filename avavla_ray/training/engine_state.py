"""AdamW's state as one tensor a parameter: written at one ZeRO stage and world size, read at any other.

DeepSpeed's own files (`engine.save_engine`) hold each rank's padded partitions and fit only the stage and the number
of ranks that wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.training.engine_shares import Share, assemble, masters, read_whole, shares

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def optimizer_state(engine: Any, prefix: str = "policy.") -> Iterator[tuple[str, Tensor]]:
    """Every learning parameter's "NAME.exp_avg" and "NAME.exp_avg_sq" (its shape) and "NAME.step" (no dimensions).

    float32 on the CPU, at rank 0; the other ranks are given nothing, but must exhaust the iterator too: collective.
    One parameter at a time is assembled. Before the first optimizer step all is zero.
    """
    flats, state = masters(engine), engine.optimizer.state
    for share in shares(engine, prefix):
        flat = flats[share.master]
        found = state.get(flat) or _blank(flat, fused=False)
        for key in MOMENTS:
            whole = assemble(engine, share, found[key])
            if whole is not None:
                yield f"{share.name}.{key}", whole
        if engine.global_rank == 0:
            yield f"{share.name}.{STEP}", found[STEP].to("cpu", torch.float32, copy=True)


@torch.no_grad()
def load_optimizer_state(engine: Any, read: Callable[[str], Tensor], prefix: str = "policy.") -> None:
    """Restore what `optimizer_state` gave, at any stage and world size. Collective; a fresh engine will do.

    A rank reads the moments of those parameters that it holds a part of. Where parameters share a flat master (stages
    1 to 3) and differ in their steps (stage 0 does not count those without a gradient), the largest counts.

    Args:
        read: gives the tensor of a name, or raises KeyError.

    Raises:
        InputError: on every rank, if a tensor is missing or of another shape on any; the engine is then half loaded.
    """
    problem = None
    try:
        _load(engine, read, shares(engine, prefix))
    except InputError as error:
        problem = str(error)
    # A rank that raised alone would leave the others waiting in their next collective.
    problems: list[str | None] = [None] * engine.world_size
    torch.distributed.all_gather_object(problems, problem)
    for found in problems:
        if found is not None:
            raise InputError(found)


def _load(engine: Any, read: Callable[[str], Tensor], found: list[Share]) -> None:
    flats, state = masters(engine), engine.optimizer.state
    fused = engine.optimizer.param_groups[0]["fused"]
    steps: dict[int, Tensor] = {}
    for share in found:
        flat = flats[share.master]
        if not state.get(flat):
            state[flat] = _blank(flat, fused=fused)
        step = read_whole(read, f"{share.name}.{STEP}", torch.Size())
        steps[share.master] = torch.maximum(step, steps.get(share.master, step))
        if share.inside.stop > share.inside.start:
            for key in MOMENTS:
                whole = read_whole(read, f"{share.name}.{key}", share.shape)
                state[flat][key].view(-1)[share.inside].copy_(whole.reshape(-1)[share.part])
    for master, step in steps.items():
        state[flats[master]][STEP].copy_(step)


def _blank(flat: Tensor, *, fused: bool) -> dict[str, Tensor]:
    """What `torch.optim.AdamW` makes at its first step."""
    moments = {key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS}
    return {STEP: torch.zeros((), device=flat.device if fused else "cpu"), **moments}
