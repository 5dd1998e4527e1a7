"""Which numbers of the learning parameters this rank optimises, and where they lie, at any ZeRO stage.

DeepSpeed's optimizer steps "masters": float32 tensors of this rank. At stage 0 they are the parameters themselves, at
1 and 2 this rank's part of each group's parameters laid end to end (padded), at 3 this rank's part of every parameter,
laid end to end. With offload they lie in CPU memory. DeepSpeed's own accessors (`deepspeed.utils.safe_get_*` and
`safe_set_*`, 0.19.8) are no help: at stage 0 they do nothing, before the first step they raise, at 1 and 2 they miss
the state of every group but the first, and at 3 they can't set a parameter that the ranks don't divide evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avavla_ray.errors import InputError

NOTHING = slice(0, 0)


class Share(NamedTuple):
    """This rank's part of one learning parameter.

    Attributes:
        name, shape: of the whole parameter.
        master: index in `masters(engine)`; the same on every rank.
        inside: where the part lies in that master, flattened; empty if this rank holds none of the parameter.
        part: which numbers of the flattened parameter it is.
    """

    name: str
    shape: torch.Size
    master: int
    inside: slice
    part: slice


def masters(engine: Any) -> list[Tensor]:
    """The float32 tensors that this rank's optimizer steps: the same number on every rank."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 0:
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups


def shares(engine: Any, prefix: str = "policy.") -> list[Share]:
    """A share for every parameter below `prefix` that learns, in the module's order; names without the prefix."""
    place = (_replicated, _flattened, _flattened, _partitioned)[engine.zero_optimization_stage()](engine)
    return [
        Share(name.removeprefix(prefix), getattr(parameter, "ds_shape", parameter.shape), *place[id(parameter)])
        for name, parameter in engine.module.named_parameters()
        if parameter.requires_grad and name.startswith(prefix)
    ]


def _replicated(engine: Any) -> dict[int, tuple[int, slice, slice]]:
    whole = [slice(0, parameter.numel()) for parameter in masters(engine)]
    return {id(parameter): (i, whole[i], whole[i]) for i, parameter in enumerate(masters(engine))}


def _flattened(engine: Any) -> dict[int, tuple[int, slice, slice]]:
    places = {}
    for i, group in enumerate(engine.optimizer.bit16_groups):
        for parameter in group:
            inside = part = NOTHING
            if (mapping := parameter._hp_mapping) is not None:
                inside, part = (
                    slice(address.start, address.start + address.numel)
                    for address in (mapping.hp_fragment_address, mapping.lp_fragment_address)
                )
            places[id(parameter)] = i, inside, part
    return places


def _partitioned(engine: Any) -> dict[int, tuple[int, slice, slice]]:
    return {
        id(parameter): (master, slice(start, start + last - first), slice(first, last))
        for parameter, master, start, _, first, last in _parts(engine)
    }


def _parts(engine: Any) -> Iterator[tuple[Tensor, int, int, int, int, int]]:
    """At ZeRO 3: each parameter, its master, where its part begins there, the part's size with padding, and the first
    number of the parameter in it and the one behind the last."""
    optimizer = engine.optimizer
    for group in optimizer.fp16_groups:
        for parameter in group:
            master, start, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
            first = min(engine.global_rank * size, parameter.ds_numel)
            yield parameter, master, start, size, first, min(first + size, parameter.ds_numel)


@torch.no_grad()
def clear_padding(engine: Any) -> None:
    """At ZeRO 3, zero what fills the last ranks' parts up to equal length: DeepSpeed 0.19.8 leaves the memory as found.

    Nothing reads it as a weight, but now and then it is not finite, and then the masters are not either.
    """
    for parameter, master, start, size, first, last in _parts(engine):
        masters(engine)[master][start + last - first : start + size] = 0
        parameter.ds_tensor[last - first :] = 0


@torch.no_grad()
def assemble(engine: Any, share: Share, values: Tensor) -> Tensor | None:
    """A whole CPU tensor at rank 0 (None elsewhere) from every rank's `values`, laid out like its master. Collective.

    Needs room for the whole parameter, once, on every rank.
    """
    mine = values.view(-1)[share.inside]
    if engine.zero_optimization_stage() == 0:
        return mine.to("cpu", copy=True).view(share.shape) if engine.global_rank == 0 else None
    whole = torch.zeros(share.shape.numel(), device=engine.device)
    whole[share.part] = mine.to(engine.device)
    torch.distributed.reduce(whole, 0)  # the parts don't overlap, so that the sum is exact
    return whole.to("cpu").view(share.shape) if engine.global_rank == 0 else None


@torch.no_grad()
def publish(engine: Any) -> None:
    """Give the module the masters' values, on every rank, as the end of an optimizer step does. Collective."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.empty_partition_cache()  # small parameters stay gathered between steps: drop those copies
        for weights, master in zip(
            optimizer.fp16_partitioned_groups_flat, optimizer.fp32_partitioned_groups_flat, strict=True
        ):
            weights.copy_(master)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def read_whole(read: Callable[[str], Tensor], name: str, shape: torch.Size) -> Tensor:
    """`read(name)`, which must have this shape.

    Raises:
        InputError: `read` knows no such tensor (KeyError), or it has another shape.
    """
    try:
        tensor = read(name)
    except KeyError as error:
        raise InputError(
            f"the training state lacks {name}: resume with the policy and the stages that it began with"
        ) from error
    if tensor.shape != shape:
        raise InputError(
            f"{name} of the training state has shape {tuple(tensor.shape)} instead of {tuple(shape)}: "
            "resume with the policy that it began with"
        )
    return tensor
