#!/usr/bin/env python
"""Bring a published OpenVLA or OpenVLA-OFT checkpoint into this project's format, or with --export back out.

The folder is what Hugging Face holds: config.json, preprocessor_config.json, tokenizer.json, the safetensors shards
with their index, and for OFT dataset_statistics.json and the .pt files of proprioception projector and action head.
Nothing of it is run. Weights keep their numbers and dtype, and memory stays near one shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    """Settings of an import."""

    checkpoint: Path
    """The published folder; with --export, one that this job or a training job wrote."""
    output: Path
    """Folder to write; it must not exist yet."""
    export: bool = False
    """Write the published layout instead of reading it."""
    images: int | None = None
    """Images a decision sees, which no file says; 2 with an action head and 1 without when left out."""
    chunk: int | None = None
    """Actions a decision, which no file says; 8 with an action head and 1 without when left out."""
    shard_gigabytes: float = 4.0
    """Largest size of a file of weights."""


def main(settings: Settings) -> None:
    from avavla_ray.errors import InputError

    if settings.output.exists():
        raise InputError(f"{settings.output} exists already: give another --output")
    if settings.shard_gigabytes <= 0:
        raise InputError(f"--shard-gigabytes {settings.shard_gigabytes}: give more than 0")
    for flag, value in (("--images", settings.images), ("--chunk", settings.chunk)):
        if value is not None and value < 1:
            raise InputError(f"{flag} {value}: give at least 1")

    from avavla_ray.policy.openvla.exchange import count_published, count_tensors, export_checkpoint, import_checkpoint
    from avavla_ray.policy.openvla.folder import open_folder
    from avavla_ray.policy.openvla.source import open_source
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance

    if settings.export:
        total = count_published(open_folder(settings.checkpoint, verify=False))
        with Progress(total, "export", "tensors") as progress:
            export_checkpoint(settings.checkpoint, settings.output, tick=progress.advance)
        print(f"published layout in {settings.output}")
        return
    source = open_source(settings.checkpoint, images=settings.images, chunk=settings.chunk)
    with Progress(count_tensors(source), "import", "tensors") as progress:
        import_checkpoint(
            source, settings.output, provenance=provenance(seed=0, source=str(settings.checkpoint.name)),
            shard_bytes=int(settings.shard_gigabytes * (1 << 30)), tick=progress.advance,
        )  # fmt: skip
    config = source.config
    print(
        f"{'OpenVLA-OFT' if config.parallel else 'OpenVLA'}, {config.images} images, chunk {config.chunk}, "
        f"statistics of {', '.join(sorted(source.statistics))}; checkpoint in {settings.output}"
    )


if __name__ == "__main__":
    run_job(main, Settings)
