#!/usr/bin/env python
"""Offer a policy to robots over HTTP: their requests are decided in batches, their beliefs kept in sessions.

docs/serving.md describes what it answers to, docs/robot_client.py is a client of 30 lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    """Settings of a policy server."""

    checkpoint: Path
    """Checkpoint folder, as a training job or import_openvla wrote it."""
    host: str = "127.0.0.1"
    """Address to listen at. There is no authentication: 0.0.0.0 offers the policy to whoever reaches this machine."""
    port: int = 8777
    """0 takes a free one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes GPUs where the cluster has enough."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the backbone; the checkpoint's own when left out."""
    exit_preset: Path | None = None
    """How long to think, as jobs/sweep_exit.py found it best."""
    exit_threshold: float | None = None
    """Stop thinking when the exit gate exceeds it; the checkpoint's own when left out."""
    depth: int | None = None
    """Fixed number of latent steps instead of the gate."""
    keep_ratio: float | None = None
    """Share of visual tokens kept; the checkpoint's own when left out."""
    attention: Literal["sdpa", "flex", "flash", "explicit"] | None = None
    """Kernel of an OpenVLA's language model. flash needs bfloat16 on a GPU, explicit is for debugging."""
    compile: bool = False
    """Run the --depth latent steps through torch.compile, on a GPU as a CUDA graph. It starts later, by minutes."""
    unnorm_key: str | None = None
    """Data set whose units are meant where a request names none; needed where the checkpoint knows several."""
    max_batch: int = 16
    """Most requests decided together; 1 switches batching off."""
    batch_wait_ms: float = 2.0
    """How long the first request of a batch waits for others."""
    replicas: int = 1
    """Policies that share the robots. Sessions don't depend on which one decides."""
    gpu_share: float = 1.0
    """GPUs that a policy takes; with 0.5 two share one."""
    threads: int = 1
    """Processor threads that a policy computes with."""
    session_minutes: float = 10.0
    """A session that isn't asked for so long is closed."""
    max_sessions: int = 1000


def main(settings: Settings) -> None:
    from actors.serving.start import bind

    digest = _checked(settings)
    listener = bind(settings.host, settings.port)
    host, port = listener.getsockname()[:2]

    import ray

    from actors.cluster import connect
    from actors.serving.replica import PolicyPlan
    from actors.serving.start import (
        ServingPlan,
        deployed,
        interrupted_by_sigterm,
        listen_until_signal,
        remote_decide,
    )
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.exit_setting import load_exit_preset

    connect(cpus=settings.replicas * settings.threads)
    interrupted_by_sigterm()
    gpus, wanted = ray.cluster_resources().get("GPU", 0), settings.replicas * settings.gpu_share
    if settings.device == "cuda" and gpus < wanted:
        raise InputError(
            f"--device cuda --replicas {settings.replicas}: needs {wanted:g} GPUs, the cluster has {gpus:g}"
        )
    device = "cuda" if settings.device != "cpu" and gpus >= wanted else "cpu"
    options: dict[str, Any] = {"exit_threshold": settings.exit_threshold, "depth": settings.depth}
    if settings.exit_preset is not None:
        options = load_exit_preset(settings.exit_preset).decide_options()
    options["keep_ratio"] = settings.keep_ratio
    plan = PolicyPlan(
        str(settings.checkpoint.resolve()), digest, device, settings.precision, settings.threads,
        {name: value for name, value in options.items() if value is not None},
        settings.attention, settings.compile, settings.max_batch, settings.gpu_share,
    )  # fmt: skip
    serving = ServingPlan(
        settings.replicas, settings.max_batch, settings.batch_wait_ms, settings.session_minutes,
        settings.max_sessions, settings.unnorm_key,
    )  # fmt: skip
    # A port belongs to one server of a machine, so an application of this name can only be a dead server's.
    name = f"avavla-{ray.util.get_node_ip_address()}-{port}"
    with deployed(name, plan, settings.replicas) as handle:
        if (problem := handle.problem.remote().result()) is not None:
            raise InputError(problem)
        facts = handle.facts.remote().result()

        def ready() -> None:
            if host not in ("127.0.0.1", "::1"):
                print(f"listening at {host}, not only for this machine, and there is no authentication", flush=True)
            shown = f"[{host}]" if ":" in host else host
            described = f"{facts.config.preset} policy {facts.digest[:12]}, {facts.device}, {facts.precision}"
            print(f"serving {described} at http://{shown}:{port}", flush=True)

        listen_until_signal(listener, facts, remote_decide(handle), serving, ready)


def _checked(settings: Settings) -> str:
    """The checkpoint's digest, once whatever can be seen to be wrong before anything slow starts is refused.

    Raises:
        InputError: a setting out of its range, or a checkpoint that isn't whole.
    """
    from avavla_ray.errors import InputError, check_fraction, check_known

    for name, value, least in (
        ("max-batch", settings.max_batch, 1), ("replicas", settings.replicas, 1), ("threads", settings.threads, 1),
        ("max-sessions", settings.max_sessions, 0),
    ):  # fmt: skip
        if value < least:
            raise InputError(f"--{name} {value}: expected at least {least}")
    if not 0 <= settings.batch_wait_ms <= 10_000:
        raise InputError(f"--batch-wait-ms {settings.batch_wait_ms}: expected 0 to 10000")
    if not settings.session_minutes > 0:
        raise InputError(f"--session-minutes {settings.session_minutes}: expected more than 0")
    if not 0 < settings.gpu_share <= 1:
        raise InputError(f"--gpu-share {settings.gpu_share}: expected more than 0, at most 1")
    if settings.exit_threshold is not None and settings.depth is not None:
        raise InputError("--exit-threshold and --depth exclude each other: give one of them")
    if settings.exit_preset is not None and (settings.exit_threshold is not None or settings.depth is not None):
        raise InputError("--exit-preset says how long to think: give no --exit-threshold and no --depth beside it")
    if settings.compile and not settings.depth:
        raise InputError(f"--compile needs a fixed --depth of at least 1, got {settings.depth}")

    from avavla_ray.evaluation.exit_setting import load_exit_preset
    from avavla_ray.normalisation import read_statistics
    from avavla_ray.policy.checkpoint import read_config
    from avavla_ray.policy.config import BackboneConfig, check_depth
    from avavla_ray.policy.folder import STATISTICS, open_folder
    from avavla_ray.policy.units import check_widths

    opened = open_folder(settings.checkpoint, verify=False)
    config = read_config(opened)
    if settings.unnorm_key is not None:
        statistics = read_statistics(opened.statistics, STATISTICS)
        check_known("--unnorm-key", settings.unnorm_key, statistics)
        check_widths(config, statistics[settings.unnorm_key])
    if settings.exit_preset is not None:
        load_exit_preset(settings.exit_preset, config, families=False)
    if settings.exit_threshold is not None:
        check_fraction("--exit-threshold", settings.exit_threshold)
        if not (config.latent.enabled and config.latent.early_exit):
            raise InputError(f"--exit-threshold {settings.exit_threshold}: this policy has no early exit: leave it out")
    if settings.keep_ratio is not None:
        check_fraction("--keep-ratio", settings.keep_ratio)
        if settings.keep_ratio < 1 and not config.attention.enabled:
            raise InputError(f"--keep-ratio {settings.keep_ratio}: this policy has no AVA to choose by: leave it out")
    if settings.depth is not None:
        check_depth(config, settings.depth)
    if settings.attention is not None and isinstance(config.backbone, BackboneConfig):
        raise InputError(f"--attention {settings.attention}: a {config.preset} policy has one kernel: leave it out")
    return opened.digest


if __name__ == "__main__":
    run_job(main, Settings)
