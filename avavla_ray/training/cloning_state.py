"""What a checkpoint of behaviour cloning holds, independent of ZeRO stage and number of workers.

policy/                  the policy as it would act: a checkpoint in the one format, of use to every job
learner/*.safetensors    optimizer state by parameter; beside averaged weights the raw ones
streams.safetensors      the belief of every stream, in the order of streams
manifest.json            position and walk among its facts (training/run_checkpoints.py); written last
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.policy.folder import SHARD_BYTES
from avavla_ray.policy.tensors import ShardWriter, read_shapes, read_tensor, save_tensors
from avavla_ray.policy.types import Belief

POLICY, LEARNER, STREAMS = "policy", "learner", "streams.safetensors"
_FIX = "resume from another checkpoint"


def write_learner(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Write what `StageRun.learner` yields. If that fails, the caller has to `exhaust` it."""
    place = folder / LEARNER
    place.mkdir()
    writer = ShardWriter(place, SHARD_BYTES)
    for name, tensor in tensors:
        writer.add(name, tensor)
    writer.flush()


def exhaust(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Take part in making tensors that another worker keeps."""
    for _ in tensors:
        pass


def learner_reader(folder: Path) -> Callable[[str], Tensor]:
    """Reads single tensors of what `write_learner` wrote.

    Raises:
        InputError: from the reader, for a tensor that is not there.
    """
    files = {
        name: path for path in sorted((folder / LEARNER).glob("*.safetensors")) for name in read_shapes(path, _FIX)
    }

    def read(name: str) -> Tensor:
        if name not in files:
            raise InputError(f"{folder / LEARNER} has no {name}: {_FIX}")
        return read_tensor(files[name], name).clone()  # not a view of the file, which may be removed meanwhile

    return read


def write_beliefs(folder: Path, belief: Belief) -> None:
    """Write the belief of all streams."""
    save_tensors(dict(zip(Belief._fields, (part.contiguous() for part in belief), strict=True)), folder / STREAMS)


def read_beliefs(folder: Path, mine: range, device: torch.device) -> Belief:
    """The belief of some streams.

    Raises:
        InputError: it was written for fewer streams.
    """
    whole = [read_tensor(folder / STREAMS, name) for name in Belief._fields]
    if mine and len(whole[0]) <= mine[-1]:
        raise InputError(f"{folder / STREAMS} holds {len(whole[0])} streams: resume with the settings it began with")
    return Belief(*(part[list(mine)].to(device) for part in whole))


def gather_beliefs(belief: Belief, mine: range, streams: int, world: int) -> Belief:
    """The belief of all streams on every worker's CPU. Collective.

    Args:
        belief: of the streams `mine` of this worker.
    """
    own = (list(mine), [part.cpu() for part in belief])
    found: list[tuple[list[int], list[Tensor]]] = [own]
    if world > 1:
        found = [own] * world
        dist.all_gather_object(found, own)
    parts = []
    for index, part in enumerate(belief):
        whole = torch.zeros(streams, *part.shape[1:], dtype=part.dtype)
        for rows, theirs in found:
            whole[rows] = theirs[index]
        parts.append(whole)
    return Belief(*parts)
