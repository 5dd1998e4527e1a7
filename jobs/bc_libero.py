#!/usr/bin/env python
"""Clone demonstrations with Ray Train and DeepSpeed, then warm the latent loop up on them.

Reads what collect_demos wrote; leaves the policy in OUTPUT/checkpoint and its curves in MLflow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    """Settings of behaviour cloning. What is left out comes from the recipe."""

    demos: Path
    """Folder that collect_demos wrote."""
    preset: str = "small"
    """Policy to train; ignored with --checkpoint."""
    recipe: str = "default"
    """Named training settings (default, paper, demo, tiny), or a TOML file of them."""
    steps: int | None = None
    """Optimizer steps of all stages together."""
    minutes: float | None = None
    """Wall time of training; whichever of steps and minutes is over first ends it."""
    stages: tuple[str, ...] | None = None
    """KIND[=SHARE][@RATE] each, for instance cloning=0.8@1e-3 latent_warm_up=0.2."""
    streams: int | None = None
    """Decisions in a batch, over all workers."""
    workers: int | None = None
    """Training processes."""
    threads: int | None = None
    """Compute threads of each."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What DeepSpeed shards: 1 optimizer, 2 and gradients, 3 and parameters."""
    precision: Literal["float32", "bfloat16"] | None = None
    """bfloat16: of the arithmetic, and of the frozen weights under adapters; what learns stays float32."""
    lora_rank: int | None = None
    """Train adapters of this rank in the language model and the projector instead of all weights (OpenVLA only)."""
    recompute: bool = False
    """Recompute activations in the backward pass: far less memory, more arithmetic (OpenVLA only)."""
    checkpoint: Path | None = None
    """Start from this checkpoint's weights."""
    output: Path = Path("runs/bc")
    run_id: str | None = None
    """Identity of this run in MLflow; the output folder's name when left out."""
    resume: bool = False
    """Continue the run in the output folder from its last checkpoint."""
    seed: int | None = None
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


def main(settings: Settings) -> None:
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.policy.checkpoint import read_config
    from avavla_ray.policy.config import LoraConfig, check_config, preset
    from avavla_ray.policy.folder import open_folder
    from avavla_ray.training.settings import parse_stages, recipe

    names = ("steps", "minutes", "stages", "streams", "workers", "threads", "zero_stage", "precision", "recompute",
             "seed")  # fmt: skip
    given = {name: getattr(settings, name) for name in names}
    chosen = recipe(settings.recipe, **given | {"stages": settings.stages and parse_stages(*settings.stages)})
    if settings.checkpoint is None:
        policy = preset(settings.preset)
    else:
        policy = read_config(open_folder(settings.checkpoint, verify=False))
    # Our demonstrations command the gripper as the simulators do; train() turns the head of other weights with it.
    policy = replace(policy, gripper="signed")
    if settings.lora_rank is not None:
        policy = replace(policy, lora=LoraConfig(rank=settings.lora_rank))
    check_config(policy)
    metadata = read_metadata(settings.demos)

    from actors.cluster import connect
    from avavla_ray.provenance import provenance
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track
    from avavla_ray.training.behaviour_cloning import check_fit, check_unused, train

    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)
    check_fit(metadata, policy)
    check_unused(settings.output, settings.resume)
    connect(cpus=chosen.workers * chosen.threads)
    described = provenance(seed=chosen.seed, precision=chosen.precision)
    print(
        f"cloning {len(metadata.episodes)} episodes ({metadata.steps} steps) of {metadata.name} from {settings.demos}\n"
        f"policy {policy.preset}, {chosen.workers} worker(s), ZeRO stage {chosen.zero_stage}, "
        f"{chosen.steps or 'any number of'} steps, {chosen.minutes or 'any number of'} minutes",
        flush=True,
    )
    with track(
        f"bc {settings.output.name}", kind="bc", uri=uri,
        run_key=settings.run_id or settings.output.name, resume=settings.resume,
        params={"preset": policy.preset, "suite": metadata.name, **{name: getattr(chosen, name) for name in names}},
        tags={**described, "demonstrations": metadata.manifest.get("provenance", {})},
    ) as run:  # fmt: skip
        result = train(
            chosen, policy, settings.demos, settings.output,
            initial=settings.checkpoint, resume=settings.resume, provenance=described, tracking=(uri, run.run_id),
        )  # fmt: skip
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items() if name.startswith("val"))
    print(
        f"\n{result.metrics['step']} steps in {result.metrics['elapsed'] / 60:.1f} minutes"
        + (f"; held-out {numbers}" if numbers else "")
        + f"\npolicy in {result.checkpoint}"
    )


if __name__ == "__main__":
    run_job(main, Settings)
