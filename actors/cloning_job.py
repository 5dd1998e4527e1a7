"""What jobs/bc_libero.py and jobs/bc_calvin.py do: clone demonstrations of one benchmark on a cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avavla_ray.errors import InputError

if TYPE_CHECKING:
    from avavla_ray.demonstrations.mixture import Mixture
    from avavla_ray.policy.config import PolicyConfig
    from avavla_ray.training.settings import CloningSettings


@dataclass(frozen=True)
class Settings:
    """Settings of behaviour cloning. What is left out comes from the recipe."""

    demos: tuple[str, ...]
    """Data sets: folders that collect_demos or import_demos wrote, or URIs of them (s3://BUCKET/FOLDER, gs://...).
    Several are mixed by size, or as WHERE=WEIGHT says: the share of decisions learned from each."""
    preset: str = "small"
    """Policy to train; ignored with --checkpoint."""
    without: tuple[Literal["ava", "belief", "latent"], ...] = ()
    """Parts that the policy is built without, for ablations: visual attention, memory, latent reasoning."""
    latent_steps: int | None = None
    """K, the most latent steps of a decision; the preset's when left out."""
    recipe: str = "default"
    """Named training settings (default, paper, libero, few, demo, tabletop, tiny), or a TOML file of them
    (docs/training.md)."""
    steps: int | None = None
    """Optimizer steps of all stages together."""
    minutes: float | None = None
    """Wall time of training; whichever of steps and minutes is over first ends it."""
    stages: tuple[str, ...] = ()
    """KIND[=SHARE][@RATE] each: cloning, latent_warm_up, exit_calibration; share of the budget, peak learning rate."""
    streams: int | None = None
    """Decisions in an optimizer step, over all workers and accumulated batches."""
    decisions: int | None = None
    """Consecutive decisions of each stream that a step sums over."""
    accumulation: int | None = None
    """Batches that an optimizer step's streams are divided into: less memory, the same result."""
    augmentation: Literal["none", "openvla"] | None = None
    """openvla: random crop of 0.9 and colour jitter; the policy then sees the centre crop when it acts."""
    proprio_noise: float | None = None
    """Standard deviation of noise on normalised proprioception, so that the policy looks and remembers instead."""
    average: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is kept; 0 for none."""
    workers: int | None = None
    """Training processes."""
    min_workers: int | None = None
    """Go on with as few as this when machines are lost; more join when they come back."""
    threads: int | None = None
    """Compute threads of each."""
    gpus: float | None = None
    """GPUs of each worker; one where the cluster has any when left out, and fewer of them than workers are refused."""
    data_cpus: float | None = None
    """CPUs that read and decode demonstrations, for all workers together."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What DeepSpeed shards: 1 optimizer, 2 and gradients, 3 and parameters. By default 2 on several workers."""
    offload: Literal["none", "optimizer", "all"] | None = None
    """What DeepSpeed keeps in main memory instead of the GPU's: all are optimizer and parameters (ZeRO 3)."""
    precision: Literal["float32", "bfloat16"] | None = None
    """bfloat16: of the arithmetic, and of the frozen weights under adapters; what learns stays float32."""
    lora_rank: int | None = None
    """Train adapters of this rank in the language model and the projector instead of all weights (OpenVLA only)."""
    recompute: bool = False
    """Recompute activations in the backward pass: far less memory, more arithmetic (OpenVLA only)."""
    checkpoint: Path | None = None
    """Start from this checkpoint's weights."""
    output: Path = Path("runs/bc")
    """In a store, or on a file system that all machines of the cluster share."""
    run_id: str | None = None
    """Identity of this run, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Continue the run in the output folder from its newest checkpoint, on any number of workers."""
    seed: int | None = None
    register: str | None = None
    """Name of a model in MLflow's registry: the checkpoint becomes its newest version."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


# Flags that go straight into the recipe.
CHOICES = (
    "steps", "minutes", "streams", "decisions", "accumulation", "proprio_noise", "average", "workers", "min_workers",
    "threads", "gpus", "data_cpus", "zero_stage", "offload", "precision", "seed",
)  # fmt: skip


def run(settings: Settings, *, calvin: bool) -> None:
    """Clone demonstrations: CALVIN's, or those of any other suite.

    Raises:
        InputError: something given is wrong.
    """
    from actors.cluster import connect
    from avavla_ray.model_registry import check_name
    from avavla_ray.provenance import provenance
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track
    from avavla_ray.training.behaviour_cloning import carry_out, plan

    chosen = choose(settings)
    policy = choose_policy(settings, chosen)
    planned = plan(chosen, policy, settings.demos, settings.output, initial=settings.checkpoint, resume=settings.resume)
    mixture = planned.mixture
    check_suites(mixture, calvin)
    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)
    check_name(settings.register)
    connect(cpus=round(chosen.workers * chosen.threads + chosen.data_cpus + 0.5))
    described = provenance(seed=chosen.seed, precision=chosen.precision)
    for data, held_out in zip(mixture.datasets, planned.held_out, strict=True):
        print(
            f"cloning {len(data.episodes)} episodes ({data.steps} steps) of {data.name} from {data.folder}, "
            f"{held_out or 'none'} of them held out"
        )
    print(
        f"policy {policy.preset}, {chosen.workers} worker(s), ZeRO stage {chosen.sharding(chosen.workers)}, "
        f"{chosen.steps or 'any number of'} steps, {chosen.minutes or 'any number of'} minutes, stages "
        + ", ".join(f"{stage.kind} {stage.share:g}" for stage in chosen.stages),
        flush=True,
    )
    with track(
        f"bc {settings.output.name}", kind="bc", uri=uri,
        run_key=settings.run_id or settings.output.name, resume=settings.resume, output=settings.output,
        params={"preset": policy.preset, "suite": "+".join(mixture.statistics), **asdict(chosen)},
        tags={**described, "demonstrations": [data.manifest.get("provenance", {}) for data in mixture.datasets]},
    ) as tracked:  # fmt: skip
        result = carry_out(planned, provenance=described, tracking=(uri, tracked.run_id))
        if settings.register is not None:
            tracked.register_checkpoint(result.checkpoint, settings.register)
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items() if name.startswith("val"))
    print(
        f"\n{result.metrics['step']} steps in {result.metrics['elapsed'] / 60:.1f} minutes"
        + (f"; held-out {numbers}" if numbers else "")
        + f"\npolicy in {result.checkpoint}"
        + (f"\nlowest held-out error in {result.best}" if result.best else "")
    )


def choose(settings: Settings) -> CloningSettings:
    """The recipe with what the command line changes."""
    from avavla_ray.demonstrations.augmentation import OPENVLA, Augmentation
    from avavla_ray.training.settings import parse_stages, recipe

    return recipe(
        settings.recipe,
        **{name: getattr(settings, name) for name in CHOICES},
        recompute=settings.recompute or None,
        stages=parse_stages(*settings.stages) or None,
        augmentation={None: None, "none": Augmentation(), "openvla": OPENVLA}[settings.augmentation],
    )


def choose_policy(settings: Settings, chosen: CloningSettings) -> PolicyConfig:
    """The preset's or the checkpoint's configuration, for these demonstrations and this augmentation."""
    from avavla_ray.policy.checkpoint import read_config
    from avavla_ray.policy.config import LoraConfig, ablated, check_config, preset
    from avavla_ray.policy.folder import open_folder

    if settings.checkpoint is not None and (settings.without or settings.latent_steps is not None):
        raise InputError("--without and --latent-steps build another policy than that of --checkpoint: give either")
    if settings.checkpoint is None:
        policy = ablated(preset(settings.preset), settings.without)
        if settings.latent_steps is not None:
            policy = replace(policy, latent=replace(policy.latent, max_steps=settings.latent_steps))
        # A checkpoint has its crop already; a fresh policy gets the one that it is trained with.
        policy = replace(policy, backbone=replace(policy.backbone, crop=chosen.augmentation.crop))
    else:
        policy = read_config(open_folder(settings.checkpoint, verify=False))
    # Our demonstrations command the gripper as the simulators do; train() turns the head of other weights with it.
    policy = replace(policy, gripper="signed")
    if settings.lora_rank is not None:
        policy = replace(policy, lora=LoraConfig(rank=settings.lora_rank))
    check_config(policy)
    return policy


def check_suites(mixture: Mixture, calvin: bool) -> None:
    """Raise InputError for demonstrations of CALVIN among others, or others among CALVIN's: the gripper's sign and the
    units of the actions mean something else there."""
    for data in mixture.datasets:
        suite = str(data.manifest.get("suite", data.name))
        if suite.startswith("calvin") != calvin:
            job = "bc_libero" if calvin else "bc_calvin"
            raise InputError(f"{data.folder} holds demonstrations of {suite}: clone them with jobs/{job}.py")
