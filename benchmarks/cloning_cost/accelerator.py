"""A step of cloning a model of the published geometry with LoRA, in bfloat16, activations recomputed: on a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avavla_ray.demonstrations.windows import Batch
from avavla_ray.files import write_json
from avavla_ray.policy.config import LoraConfig, PolicyConfig, preset
from avavla_ray.policy.lora import adapt
from avavla_ray.policy.openvla.backbone import OpenVlaBackbone
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.cost import decision_cost
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.training.cloning_start import set_types
from avavla_ray.training.engine import start_process_group
from avavla_ray.training.meter import SETTLING
from avavla_ray.training.settings import CloningSettings, Stage
from avavla_ray.training.stage_run import StageRun, engine_settings
from benchmarks.cloning_cost.workers import NUMBERS
from benchmarks.policy_cost.batches import peak_flops
from benchmarks.policy_cost.models import random_model
from benchmarks.policy_cost.subjects import PROMPT_TOKENS, make_inputs

RANK = 32
FROZEN, ADAPTED, LEARNING = 1, 2, 3


@dataclass(frozen=True)
class GpuPlan:
    """What the worker measures; picklable.

    Attributes:
        preset: of an OpenVLA geometry. settings: streams of a step.
        output: folder that gets NUMBERS. seconds: to measure for. peak_tflops: of the device, 0 looks it up.
    """

    preset: str
    settings: CloningSettings
    output: Path
    seconds: float
    peak_tflops: float = 0.0


def lora_settings(streams: int) -> CloningSettings:
    """Of the step that is measured."""
    return CloningSettings(
        minutes=60, streams=streams, workers=1, stages=(Stage("cloning", 1.0, 1e-4),), precision="bfloat16",
        recompute=True,
    )  # fmt: skip


def measure_steps(plan: GpuPlan) -> None:
    """Time optimizer steps of `StageRun`, as jobs take them, on observations of noise that lie ready in memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = plan.settings
    start_process_group(engine_settings(settings, 1))
    policy = adapted_policy(plan.preset, device)
    config = policy.config
    run = StageRun(policy, settings, 0)
    batch = noise_batch(config, settings.streams)
    belief = run.policy.initial_belief(settings.streams, run.engine.device)
    steps, start = 0, 0.0
    while steps <= SETTLING or time.perf_counter() - start < plan.seconds:
        if steps == SETTLING:
            start = time.perf_counter()
        # A step ends with its loss on the CPU, and so with the device's work done.
        belief, _ = run.step(batch, belief, step=steps, done=0.5, cloned=0.5, mine=range(settings.streams))
        steps += 1
    seconds = (time.perf_counter() - start) / (steps - SETTLING)
    numbers: dict[str, Any] = step_rates(config, settings.streams, seconds)
    if device == "cuda":
        reached = settings.streams * training_flops(config) / seconds
        numbers["gpu_model_flops_utilisation"] = reached / peak_flops(device, plan.peak_tflops)
        numbers["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        numbers["gpu"] = torch.cuda.get_device_name(0)
    run.close()
    write_json(plan.output / NUMBERS, numbers)


def step_rates(config: PolicyConfig, streams: int, seconds: float) -> dict[str, Any]:
    """Of a step over `streams` decisions that took `seconds`."""
    tokens = next(part.tokens for part in _parts(config) if part.part.startswith("layer"))
    return {
        "gpu_step_s": seconds,
        "gpu_decisions_per_s": streams / seconds,
        "gpu_tokens_per_s": streams * tokens / seconds,  # of the language model
        "gpu_tokens_per_decision": tokens,
        "gpu_model_tflop_per_s": 1e-12 * streams * training_flops(config) / seconds,
        "gpu_streams": streams,
        "gpu_preset": config.preset,
    }


def training_flops(config: PolicyConfig) -> float:
    """What a decision of LoRA training has to compute at least, by the matrix products of the forward pass.

    Once the vision towers, before which nothing learns; twice what is adapted (forward, gradient of the inputs), three
    times what learns itself. Recomputed activations, the adapters and the policy around the model do not count.
    """
    factors = {"dino": FROZEN, "siglip": FROZEN, "proprio": LEARNING, "l1 head": LEARNING}
    return float(sum(part.flops * factors.get(part.part, ADAPTED) for part in _parts(config)))


def _parts(config: PolicyConfig) -> list[Any]:
    assert isinstance(config.backbone, OpenVlaConfig)
    return decision_cost(config.backbone, text_tokens=PROMPT_TOKENS)


def adapted_policy(name: str, device: str) -> AvaVlaPolicy:
    """A policy of random weights, made at its place, with fresh adapters."""
    config = preset(name)
    assert isinstance(config.backbone, OpenVlaConfig)
    backbone = OpenVlaBackbone(random_model(config.backbone, device, torch.bfloat16))
    with torch.device(device):
        policy = AvaVlaPolicy(config, backbone)
        adapt(policy, LoraConfig(rank=RANK))
    return set_types(policy, "bfloat16").train()


def noise_batch(config: PolicyConfig, streams: int) -> Batch:
    """One decision of each stream, with the keys of `WindowWalk`."""
    random = np.random.default_rng(0)
    images, text, proprio = (part.numpy()[:, None] for part in make_inputs(config, streams, "cpu"))
    chunk = (streams, 1, config.chunk)
    return {
        "images": images, "text": text, "proprio": proprio,
        "actions": random.uniform(-1, 1, (*chunk, config.action_dim)).astype(np.float32),
        "mask": np.ones(chunk, bool), "starts": np.zeros((streams, 1), bool),
        "counts": np.array([streams * config.chunk], np.int64),
    }  # fmt: skip
