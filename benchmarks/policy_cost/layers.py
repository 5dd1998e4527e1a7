"""Milliseconds of each part of a plain decision and of each layer of the language model, with all visual tokens and
with a share of them.

    python -m benchmarks.policy_cost.layers --layers 2

prints what the whole preset's decision costs, and the table. Without --layers all layers are built, which takes 15 GB
of memory for the 7B presets in bfloat16.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.files import write_json
from avavla_ray.policy.attention import log_bias
from avavla_ray.policy.openvla.config import preset
from avavla_ray.policy.openvla.cost import decision_cost, layer_cost
from avavla_ray.policy.openvla.model import OpenVla
from benchmarks.policy_cost.models import language_only, random_model, with_layers
from benchmarks.simulator_cost.tables import table

KEEPS = (1.0, 0.5, 0.3)
# Of OpenVLA's prompt around an instruction of LIBERO's usual length.
TEXT_TOKENS = 30


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        preset: of OpenVLA. layers: of the language model, fewer than the preset's to fit into memory; 0 for all.
        batch: decisions at once. attention: kernel. precision: float32 or bfloat16. device: cpu or cuda.
        seconds: how long the cases take turns, three rounds at least. threads: processor threads of PyTorch.
        json: file for the rows.
    """

    preset: str = "openvla_oft_7b"
    layers: int = 0
    batch: int = 1
    attention: str = "sdpa"
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"
    seconds: float = 30.0
    threads: int = 1
    json: Path | None = None


@dataclass(frozen=True)
class PartTime:
    """A part at a keep ratio: how many tokens go through it, its operations and weights, and its median time.

    Attributes:
        tokens, gflops: of the whole batch. tflops_per_second: what its time comes to.
    """

    part: str
    keep: float
    tokens: int
    gflops: float
    weight_mib: float
    milliseconds: float

    @property
    def tflops_per_second(self) -> float:
        return self.gflops / self.milliseconds


class Clock:
    """Time of modules by hooks: GPU events on a GPU, so that nothing waits in between; elsewhere the CPU time of all
    threads, which other processes on the machine disturb less than the wall clock."""

    def __init__(self, modules: dict[str, nn.Module], device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._hooks = []
        for name, module in modules.items():
            self._hooks.append(module.register_forward_pre_hook(self._starter(name)))
            self._hooks.append(module.register_forward_hook(self._stopper(name)))

    def take(self) -> dict[str, float]:
        """Milliseconds of each module since the last call, all of its passes together."""
        if self.cuda:
            torch.cuda.synchronize()
            taken = {name: sum(a.elapsed_time(b) for a, b in spans) for name, spans in self._spans.items()}
        else:
            taken = {name: 1e3 * sum(b - a for a, b in spans) for name, spans in self._spans.items()}
        self._spans.clear()
        return taken

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _now(self) -> Any:
        if not self.cuda:
            return time.process_time()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _starter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._spans[name].append((self._now(), None))

    def _stopper(self, name: str) -> Callable[..., None]:
        def stop(*_: Any) -> None:
            start, _end = self._spans[name].pop()
            self._spans[name].append((start, self._now()))

        return stop


def timed_modules(model: OpenVla) -> dict[str, nn.Module]:
    """The parts of `decision_cost`, by its names, without the embedding, which only copies rows."""
    parts = {
        "dino": model.vision.dino, "siglip": model.vision.siglip, "projector": model.projector,
        "proprio": model.proprio, "vocabulary": model.language.lm_head, "l1 head": model.head,
        **{f"layer {i}": layer for i, layer in enumerate(model.language.model.layers)},
    }  # fmt: skip
    return {name: module for name, module in parts.items() if module is not None}


def _prune_at_random(model: OpenVla, batch: int, keep: float) -> tuple[Tensor, Tensor]:
    """Places (B, N') of the kept tokens, and the bias (B, N') of weights within [0.1, 1.9]."""
    N, device = model.config.visual_tokens, model.language.lm_head.weight.device
    kept = math.ceil(keep * N)
    index = torch.rand(batch, N, device=device).topk(kept, dim=1).indices.sort(dim=1).values
    return index, log_bias(0.1 + 1.8 * torch.rand(batch, kept, device=device))


@torch.no_grad()
def measure_layers(
    model: OpenVla, *, batch: int = 1, keeps: tuple[float, ...] = KEEPS, seconds: float = 30.0
) -> list[PartTime]:
    """Rows of every part at every keep ratio; the ratios take turns until `seconds` are over, three rounds at least."""
    config, weight = model.config, model.language.lm_head.weight
    shape = (batch, config.images, config.image_size, config.image_size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=weight.device)
    ids = torch.randint(3, config.words - config.bins, (batch, TEXT_TOKENS), device=weight.device)
    proprio = torch.randn(batch, max(config.proprio_dim, 1), device=weight.device)

    def decide(keep: float) -> None:
        index, bias = _prune_at_random(model, batch, keep)
        visual, words = model.encode_images(images), model.embed_text(ids)
        visual = visual.gather(1, index[..., None].expand(-1, -1, visual.shape[2]))
        options = {"visual_bias": bias, "visual_index": index}
        if config.parallel:
            decoded = model.decode(visual, words, None, proprio=model.embed_proprio(proprio), **options)
            model.read_actions(decoded.last)
        else:
            model.generate(visual, words, None, **options)

    clock = Clock(timed_modules(model), weight.device)
    taken: dict[tuple[str, float], list[float]] = defaultdict(list)
    for keep in keeps:
        decide(keep)
    clock.take()
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < 3 or time.perf_counter() < end:
        for keep in keeps:
            decide(keep)
            for part, milliseconds in clock.take().items():
                taken[part, keep].append(milliseconds)
        rounds += 1
    clock.remove()
    rows = []
    for keep in keeps:
        kept = math.ceil(keep * config.visual_tokens)
        for cost in decision_cost(config, text_tokens=TEXT_TOKENS, visual_tokens=kept):
            if (cost.part, keep) in taken:
                mib = cost.weight_bytes(weight.element_size()) / 2**20
                milliseconds = statistics.median(taken[cost.part, keep])
                gflops = batch * cost.flops / 1e9
                rows.append(PartTime(cost.part, keep, batch * cost.tokens, gflops, mib, milliseconds))
    return rows


@torch.no_grad()
def prefill_speedup(
    keep: float, seconds: float, layers: int = 1, device: str = "cpu", batch: int = 1
) -> dict[str, float]:
    """The language model's forward pass with a share of the visual tokens against all of them, at two images, with
    layers of the 7B's size in bfloat16.

    Args:
        seconds: how long the two take turns, three rounds at least. layers: how many of the 32, all alike.

    Returns:
        speedup, and the share of the operations that it would come to by `cost.py`, flops_speedup; whole_ms and
        pruned_ms of all `layers`; whole_tokens and pruned_tokens, the lengths of the sequence.

    Raises:
        InputError: keep outside (0, 1).
    """
    if not 0.0 < keep < 1.0:
        raise InputError(f"keep {keep} is outside (0, 1): give the share of the visual tokens that stays")
    config = language_only(with_layers(preset("openvla_oft_7b"), max(layers, 2)))
    model = random_model(config, device, torch.bfloat16)
    del model.language.model.layers[layers:]
    D = config.language.width

    def noise(tokens: int) -> Tensor:
        return torch.randn(batch, tokens, D, device=device, dtype=torch.bfloat16)

    text, proprio = noise(TEXT_TOKENS), noise(1)
    inputs = {}
    for ratio in (1.0, keep):
        index, bias = _prune_at_random(model, batch, ratio)
        inputs[ratio] = {"visual": noise(index.shape[1]), "visual_bias": bias, "visual_index": index}
    clock = Clock({str(i): layer for i, layer in enumerate(model.language.model.layers)}, torch.device(device))
    taken: dict[float, list[float]] = {ratio: [] for ratio in inputs}
    end = None
    while end is None or time.perf_counter() < end or len(taken[keep]) < 3:
        for ratio, given in inputs.items():
            model.decode(text=text, present=None, proprio=proprio, **given)
            milliseconds = sum(clock.take().values())
            if end is not None:
                taken[ratio].append(milliseconds)
        end = time.perf_counter() + seconds if end is None else end
    whole, pruned = statistics.median(taken[1.0]), statistics.median(taken[keep])
    lengths = [1 + given["visual"].shape[1] + 1 + TEXT_TOKENS + config.action_tokens + 1 for given in inputs.values()]
    operations = [layer_cost(config, tokens).flops for tokens in lengths]
    return {
        "speedup": whole / pruned,
        "flops_speedup": operations[0] / operations[1],
        "whole_ms": whole,
        "pruned_ms": pruned,
        "whole_tokens": lengths[0],
        "pruned_tokens": lengths[1],
    }


def rows_table(rows: list[PartTime]) -> str:
    """Markdown: a line a part, with the time at each keep ratio."""
    keeps = sorted({row.keep for row in rows}, reverse=True)
    by_part: dict[str, dict[float, PartTime]] = defaultdict(dict)
    for row in rows:
        by_part[row.part][row.keep] = row
    head = ["part", "weights MiB", *(f"{what} {keep:g}" for keep in keeps for what in ("GFLOP", "ms", "TFLOP/s"))]
    lines: list[list[object]] = []
    for part, cells in by_part.items():
        line: list[object] = [part, cells[keeps[0]].weight_mib]
        for keep in keeps:
            line += [cells[keep].gflops, cells[keep].milliseconds, cells[keep].tflops_per_second]
        lines.append(line)
    return table(head, lines)


def main(settings: Settings) -> None:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': this machine or this PyTorch has no GPU: choose 'cpu'")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    whole = preset(settings.preset)
    for keep in KEEPS:
        kept = math.ceil(keep * whole.visual_tokens)
        costs = decision_cost(whole, text_tokens=TEXT_TOKENS, visual_tokens=kept)
        print(f"{whole.preset}, keep {keep:g}: {sum(cost.flops for cost in costs) / 1e12:.3g} TFLOP a decision")
    print()
    config = with_layers(whole, settings.layers) if settings.layers else whole
    model = random_model(config, settings.device, getattr(torch, settings.precision))
    model.set_attention(settings.attention)
    rows = measure_layers(model, batch=settings.batch, seconds=settings.seconds)
    print(rows_table(rows))
    if settings.json is not None:
        write_json(settings.json, [vars(row) for row in rows])


if __name__ == "__main__":
    run_job(main, Settings)
