"""Published OpenVLA checkpoints in, and out again, tensor by tensor."""

from __future__ import annotations

import io
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, check_space, write_json
from avavla_ray.normalisation import FILE_NAME as STATISTICS
from avavla_ray.normalisation import read_statistics, statistics_json
from avavla_ray.policy.checkpoint import BACKBONE, PUBLISHED, empty_policy, read_config
from avavla_ray.policy.config import (
    PAPER_ATTENTION,
    PAPER_LATENT,
    AttentionConfig,
    LatentConfig,
    PolicyConfig,
    openvla_policy,
    without_adaptive,
)
from avavla_ray.policy.config_json import to_json
from avavla_ray.policy.folder import AGAIN, SHARD_BYTES, SOURCE, UNUSED, CheckpointFolder, open_folder, write_folder
from avavla_ray.policy.openvla import source as published
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.gripper import closing_of, open_fraction_statistics, open_fraction_weights
from avavla_ray.policy.openvla.heads import L1Head, ProprioProjector
from avavla_ray.policy.openvla.key_map import Entry, component_entries, model_entries, unused_shapes
from avavla_ray.policy.openvla.layout import Layout, recorded_layout
from avavla_ray.policy.openvla.neutral import changing_parts
from avavla_ray.policy.openvla.prompt import PromptTokenizer, read_tokenizer
from avavla_ray.policy.openvla.shapes import model_shapes
from avavla_ray.policy.openvla.source import Source
from avavla_ray.policy.tensors import differences, read_tensor, save_tensors, summary
from avavla_ray.policy.units import misfits

Tick = Callable[[], None]
MODEL = f"{BACKBONE}model."


def policy_of(
    source: Source,
    *,
    adaptive: bool = True,
    attention: AttentionConfig = PAPER_ATTENTION,
    latent: LatentConfig = PAPER_LATENT,
) -> PolicyConfig:
    """The policy that a published checkpoint becomes; without `adaptive`, the plain model and nothing else, which stays
    what export can write however it is trained.

    Raises:
        InputError: its tokenizer is none, or another model's.
    """
    path = source.folder / "tokenizer.json"
    tokenizer = read_tokenizer(path)
    PromptTokenizer(tokenizer, source.config, str(path))
    config = openvla_policy(source.config, tokenizer, attention=attention, latent=latent)
    return config if adaptive else without_adaptive(config)


def import_checkpoint(
    source: Source,
    config: PolicyConfig,
    output: str | Path,
    *,
    provenance: dict[str, Any],
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    tick: Tick = lambda: None,
) -> list[str]:
    """Write a published checkpoint as one of this project's, its weights unchanged; memory stays near one file's worth.

    Args:
        config: from `policy_of`.
        seed: of the parts that no published checkpoint has.
        tick: called after every source tensor; there are `count_tensors(source)`.

    Returns:
        names of the parts that are fresh.

    Raises:
        InputError: the output cannot be written, or no data set's statistics are those of the model's robot. With fresh
            parts the latter is no fault, since training brings statistics of its own.
    """
    unfit = misfits(config, source.statistics)
    if len(unfit) == len(source.statistics) and not source.fresh:
        raise InputError(f"{source.folder}: no data set's statistics fit the model ({summary(list(unfit.values()))})")
    fresh = _fresh(source, config, seed)
    files = {*source.weight_map.values(), *(part.file for part in source.components.values())}
    size = sum((source.folder / file).stat().st_size for file in files)
    check_space(output, size + sum(tensor.nbytes for part in fresh.values() for tensor in part.values()))
    components = {name: {"file": part.file, "prefix": part.prefix} for name, part in source.components.items()}
    components |= {name: {"file": f"{name}--0_checkpoint.pt", "prefix": "module."} for name in source.fresh}
    write_folder(
        output, _converted(source, fresh, tick), config=to_json(config), statistics=statistics_json(source.statistics),
        tokenizer=config.tokenizer, sources=_kept(source.folder), stage="import", provenance=provenance,
        extra={PUBLISHED: {"components": components}, "fresh": {"parts": list(fresh), "seed": seed}},
        shard_bytes=shard_bytes,
    )  # fmt: skip
    return list(fresh)


def count_tensors(source: Source) -> int:
    """Tensors of a published checkpoint, the separate files' included."""
    return len(source.weight_map) + sum(len(part.tensors) for part in source.components.values())


def _kept(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix == ".json" or path.name == "tokenizer.model"]


def _fresh(source: Source, config: PolicyConfig, seed: int) -> dict[str, dict[str, Tensor]]:
    """Tensors that the source does not have, by part. Each part's numbers depend on nothing but sizes and seed."""
    name = next(entry.source for entry in model_entries(source.config))
    dtype = read_tensor(source.folder / source.weight_map[name], name).dtype
    build: dict[str, tuple[str, Callable[[OpenVlaConfig], nn.Module]]] = {
        "proprio_projector": ("proprio", ProprioProjector), "action_head": ("head", L1Head),
    }  # fmt: skip
    found: dict[str, dict[str, Tensor]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, tensor in empty_policy(config).state_dict().items():
            if not name.startswith(BACKBONE):
                found.setdefault(name.split(".")[0], {})[name] = tensor
        for component in source.fresh:
            torch.manual_seed(seed)
            part, kind = build[component]
            tensors = kind(source.config).to(dtype).state_dict()
            found[MODEL + part] = {f"{MODEL}{part}.{name}": tensor for name, tensor in tensors.items()}
    return found


def _converted(source: Source, fresh: dict[str, dict[str, Tensor]], tick: Tick) -> Iterator[tuple[str, Tensor]]:
    entries = {entry.source: entry for entry in model_entries(source.config)}
    for name, file in sorted(source.weight_map.items(), key=lambda item: (item[1], item[0])):
        tensor = read_tensor(source.folder / file, name)
        if name in entries:
            yield from _ours(entries[name], tensor)
        else:
            yield UNUSED + name, tensor
        tick()
    for name, part in source.components.items():
        for entry in component_entries(source.config)[name]:
            yield from _ours(entry, part.tensors[entry.source])
            tick()
    for tensors in fresh.values():
        yield from tensors.items()


def _ours(entry: Entry, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    for name, converted in entry.convert(tensor).items():
        yield MODEL + name, converted


class Exportable(NamedTuple):
    """A checkpoint that was found good.

    Attributes:
        weights: the checkpoint to export. kept: the one that has what only export needs, often the same.
        config: of the model. layout: of the files to be written.
        signed: its gripper is our demonstrations', not that of OpenVLA's data sets.
        changing: parts that were trained and that the layout has no place for: without them the model decides
            otherwise.
    """

    weights: CheckpointFolder
    kept: CheckpointFolder
    config: OpenVlaConfig
    layout: Layout
    signed: bool
    changing: list[str]


def open_exportable(folder: str | Path, origin: str | Path | None = None, verify: bool = True) -> Exportable:
    """A checkpoint that can be exported.

    Args:
        origin: the imported checkpoint that training started from, where the trained one does not keep what export
            needs.

    Raises:
        InputError: a folder is damaged, neither stems from a published checkpoint, or there are unmerged adapters.
    """
    weights = open_folder(folder, verify)
    kept = weights if origin is None else open_folder(origin, verify)
    policy, backbone = read_config(weights), read_config(kept).backbone
    if not isinstance(backbone, OpenVlaConfig) or PUBLISHED not in kept.extra:
        raise InputError(
            f"{kept.path} was not imported from a published checkpoint, whose layout export goes back to: give the "
            f"imported one that training started from as --origin"
        )
    if policy.backbone != backbone:
        raise InputError(f"{folder} is of another geometry than {kept.path}: give the one that training started from")
    if policy.lora is not None:
        raise InputError(f"{folder} has LoRA adapters, which the layout has no place for: fold() them into the weights")
    model = {MODEL + name: shape for name, shape in model_shapes(backbone).items()}
    if broken := differences(model, {name: s for name, s in weights.shapes.items() if name.startswith(BACKBONE)}):
        raise InputError(f"{folder} is not a checkpoint of its configuration ({summary(broken)}): {AGAIN}")
    unused = {UNUSED + name: shape for name, shape in unused_shapes(backbone).items()}
    lacking = differences(unused, {name: s for name, s in kept.shapes.items() if name.startswith(UNUSED)})
    if lacking or not (kept.path / SOURCE / "config.json").is_file():
        raise InputError(
            f"{kept.path} is not as import writes it ({summary(lacking) or f'{SOURCE}/config.json is missing'}): "
            "import the published checkpoint again"
        )
    signed = policy.gripper == "signed"
    if signed and not backbone.head_blocks:
        raise InputError(f"{folder} has a gripper in our demonstrations' units: only an L1 head is converted")
    layout = recorded_layout(
        kept, [*(entry.source for entry in model_entries(backbone)), *unused_shapes(backbone)],
        component_entries(backbone),
    )  # fmt: skip
    return Exportable(weights, kept, backbone, layout, signed, changing_parts(policy, weights.read))


def export_checkpoint(
    folder: str | Path, output: str | Path, *, origin: str | Path | None = None, tick: Tick = lambda: None
) -> list[str]:
    """Write a checkpoint's backbone in the published layout: names, shapes, shards and separate files as they came.

    Statistics are the checkpoint's own. Tensors keep the checkpoint's dtype. A gripper in our demonstrations' units
    becomes one in those of OpenVLA's data sets, see policy/openvla/gripper.py.

    Args:
        origin: as `open_exportable`.
        tick: called after every tensor of the published layout; there are `count_published(config)`.

    Returns:
        names of the parts that the layout has no place for.

    Raises:
        InputError: as `open_exportable`, or the output cannot be written.
    """
    weights, kept, config, layout, signed, _ = open_exportable(folder, origin)
    statistics = read_statistics(weights.statistics, str(weights.path / STATISTICS))
    closing = closing_of(statistics) if signed else 1
    if signed:
        statistics = open_fraction_statistics(statistics)

    def restored(entry: Entry) -> Tensor:
        def read(name: str) -> Tensor:
            tensor = weights.read(MODEL + name)
            return open_fraction_weights(name, tensor, closing) if signed else tensor

        return entry.restore(read)

    entries = {entry.source: entry for entry in model_entries(config)}
    check_space(output, sum((weights.path / file).stat().st_size for file in set(weights.weight_map.values())))
    shards: dict[str, list[str]] = defaultdict(list)
    for name, file in layout.weight_map.items():
        shards[file].append(name)
    with atomic_path(output) as temporary:
        shutil.copytree(kept.path / SOURCE, temporary)
        if statistics_json(statistics) != statistics_json(published.data_set_statistics(temporary)):
            write_json(temporary / STATISTICS, statistics_json(statistics))
        for file in sorted(shards):
            held = {}
            for name in sorted(shards[file]):
                held[name] = restored(entries[name]) if name in entries else kept.read(UNUSED + name)
                tick()
            save_tensors(held, temporary / file)
        for name, parts in component_entries(config).items():
            file, prefix = layout.components[name]
            state = {prefix + entry.source: restored(entry).clone() for entry in parts}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            # Not by torch itself, which reports a full disk as a RuntimeError about positions.
            (temporary / file).write_bytes(buffer.getbuffer())
            for _ in state:
                tick()
    return sorted({name.split(".")[0] for name in weights.shapes if not name.startswith((BACKBONE, UNUSED))})


def count_published(config: OpenVlaConfig) -> int:
    """Tensors that `export_checkpoint` writes."""
    parts = component_entries(config).values()
    return len(model_entries(config)) + len(unused_shapes(config)) + sum(map(len, parts))
