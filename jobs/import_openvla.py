#!/usr/bin/env python
"""Bring a published OpenVLA or OpenVLA-OFT checkpoint into this project's format, or with --export back out.

The folder is what Hugging Face holds: config.json, preprocessor_config.json, tokenizer.json, the safetensors shards
with their index, and for OFT dataset_statistics.json and the .pt files of proprioception projector and action head.
Nothing of it is run. Weights keep their numbers and dtype, and memory stays near one shard. What no published
checkpoint has, active visual attention and the latent loop, is fresh and neutral: until it is trained, the policy
decides as the published model does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from avavla_ray.command_line import run_job
from avavla_ray.policy.openvla.config import OpenVlaConfig


@dataclass(frozen=True)
class Settings:
    """Settings of an import."""

    checkpoint: Path
    """The published folder; with --export, one that this job or a training job wrote."""
    output: Path
    """Folder to write; it must not exist yet."""
    export: bool = False
    """Write the published layout instead of reading it."""
    origin: Path | None = None
    """With --export: the imported checkpoint that training started from, where the trained one lacks its parts."""
    parallel: bool = False
    """Make OpenVLA the start of an OpenVLA-OFT fine-tuning: a whole chunk in one pass, L1 head and proprioception."""
    images: int | None = None
    """Images a decision sees, which no file says; 2 with an action head or --parallel, otherwise 1."""
    chunk: int | None = None
    """Actions a decision, which no file says; 8 with an action head or --parallel, otherwise 1."""
    proprio_dim: int | None = None
    """Width of the proprioception with --parallel, 0 for none; 8 when left out."""
    adaptive: bool = True
    """Active visual attention, latent reasoning and state-based initialisation; off, the plain model."""
    crop: float = OpenVlaConfig.crop
    """Share of the pictures' area cut out of their centre: 0.9 for fine-tuned models, 1 for openvla-7b as it is."""
    seed: int = 0
    """Of the parts that start fresh."""
    shard_gigabytes: float = 4.0
    """Largest size of a file of weights."""


_EXPORT = ("checkpoint", "output", "export", "origin")


def main(settings: Settings) -> None:
    _check(settings)
    from avavla_ray.policy.openvla import exchange
    from avavla_ray.policy.openvla.source import Parallel, open_source
    from avavla_ray.policy.units import misfits
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance

    if settings.export:
        found = exchange.open_exportable(settings.checkpoint, settings.origin, verify=False)
        with Progress(exchange.count_published(found.config), "export", "tensors") as progress:
            left_out = exchange.export_checkpoint(
                settings.checkpoint, settings.output, origin=settings.origin, tick=progress.advance
            )
        print(f"published layout in {settings.output}; it has no place for {', '.join(left_out)}, which are left out")
        if found.changing:
            print(
                f"warning: of these {', '.join(found.changing)} were trained: without them the published model decides "
                f"otherwise than this policy; only what was imported with --no-adaptive is exported exactly"
            )
        if found.signed:
            print("the gripper's output and statistics were turned into OpenVLA's, 0 closed and 1 open")
        return
    if settings.parallel:
        sizes = {"images": settings.images, "chunk": settings.chunk, "proprio_dim": settings.proprio_dim}
        given = {name: value for name, value in sizes.items() if value is not None}
        source = open_source(settings.checkpoint, parallel=Parallel(**given), crop=settings.crop)
    else:
        source = open_source(
            settings.checkpoint, images=settings.images, chunk=settings.chunk, crop=settings.crop
        )  # fmt: skip
    config = exchange.policy_of(source, adaptive=settings.adaptive)
    with Progress(exchange.count_tensors(source), "import", "tensors") as progress:
        fresh = exchange.import_checkpoint(
            source, config, settings.output, seed=settings.seed, shard_bytes=int(settings.shard_gigabytes * (1 << 30)),
            provenance=provenance(seed=settings.seed, source=settings.checkpoint.name), tick=progress.advance,
        )  # fmt: skip
    kind = "OpenVLA-OFT" if source.config.parallel else "OpenVLA"
    print(
        f"{kind}, {source.config.images} images, crop {source.config.crop}, chunk {source.config.chunk}, statistics of "
        f"{', '.join(sorted(source.statistics))}; checkpoint in {settings.output}"
    )
    if unfit := sorted(misfits(config, source.statistics)):
        width = f"{config.proprio_dim} numbers" + (" (--proprio-dim)" if settings.parallel else "")
        print(
            f"warning: statistics of {', '.join(unfit)} do not fit {config.action_dim} actions and proprioception of "
            f"{width}: the policy cannot act by them, but cloning it brings those of the demonstrations"
        )
    needed = [part for part in fresh if settings.adaptive or part not in ("encoder", "value_head")]
    print(f"fresh from seed {settings.seed}, to be trained: {', '.join(needed) or 'nothing that acts'}")


def _check(settings: Settings) -> None:
    from avavla_ray.errors import InputError

    if settings.output.exists():
        raise InputError(f"{settings.output} exists already: give another --output")
    if settings.export:
        for field in fields(settings):
            if field.name not in _EXPORT and getattr(settings, field.name) != field.default:
                flag = ("no-" if field.default is True else "") + field.name.replace("_", "-")
                raise InputError(f"--{flag} goes with an import: leave it out of an --export")
    if settings.shard_gigabytes <= 0:
        raise InputError(f"--shard-gigabytes {settings.shard_gigabytes}: give more than 0")
    for flag, value, least in (
        ("--images", settings.images, 1), ("--chunk", settings.chunk, 1), ("--proprio-dim", settings.proprio_dim, 0),
    ):  # fmt: skip
        if value is not None and value < least:
            raise InputError(f"{flag} {value}: give at least {least}")
    if settings.proprio_dim is not None and not settings.parallel:
        raise InputError("--proprio-dim goes with --parallel: the checkpoint's own projector says its width")
    if settings.origin is not None and not settings.export:
        raise InputError("--origin goes with --export")


if __name__ == "__main__":
    run_job(main, Settings)
