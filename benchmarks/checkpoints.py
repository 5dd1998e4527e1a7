#!/usr/bin/env python
"""What checkpoints of an OpenVLA policy cost: import, load, save and export of random weights, each in a fresh process.

Writes a folder in the published layout, brings it in and out again, and compares: ends with status 1 where an exported
tensor differs from the published one. At full size this takes three folders of 15 GB beside each other, and 16 GB of
memory.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avavla_ray.command_line import run_job
from avavla_ray.files import check_space, sha256, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from avavla_ray.policy.openvla.config import OpenVlaConfig

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What to do.

    Attributes:
        quick: 4 layers of width 1024 instead of the full size; ends within 45 s on 2 cores.
        json: file for the numbers.
        folder: for the checkpoints, which are removed in the end; the system's temporary one when left out.
        shard_mib: largest file of our own.
    """

    quick: bool = False
    json: Path | None = None
    folder: Path | None = None
    shard_mib: int = 4096


def geometry(quick: bool) -> OpenVlaConfig:
    """OpenVLA-OFT, in `quick` with the same parts at a thirtieth of the size."""
    from avavla_ray.policy.openvla.config import LanguageConfig, preset

    full = preset("openvla_oft_7b")
    if not quick:
        return full
    language = LanguageConfig(width=1024, layers=4, heads=8, key_value_heads=8, mlp_width=4096)
    return replace(full, language=language, dino=replace(full.dino, layers=4), siglip=replace(full.siglip, layers=4))


def write_published(folder: Path, quick: bool) -> None:
    """Random bfloat16 weights under the published names, in three files, and the JSON files that go with them."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models

    from avavla_ray.policy.openvla.key_map import component_entries, model_entries, unused_shapes
    from avavla_ray.policy.openvla.shapes import model_shapes

    config = geometry(quick)
    ours = model_shapes(config)
    shapes = {entry.source: entry.source_shape(ours) for entry in model_entries(config)} | unused_shapes(config)
    torch.manual_seed(0)
    # Drawing seven billion numbers would take longer than all that is measured.
    noise = torch.randn(1 << 22).mul_(0.02).bfloat16()

    def weights(shape: tuple[int, ...]) -> Tensor:
        size = torch.Size(shape).numel()
        return noise.repeat(-(-size // len(noise)))[:size].clone().reshape(shape)

    folder.mkdir()
    names, files = sorted(shapes), 3
    total, written, weight_map = sum(torch.Size(shape).numel() for shape in shapes.values()), 0, {}
    held: dict[str, Tensor] = {}
    for index, name in enumerate(names):
        held[name] = weights(shapes[name])
        weight_map[name] = file = f"model-{1 + files * written // total:05d}-of-{files:05d}.safetensors"
        written += held[name].numel()
        if index + 1 == len(names) or 1 + files * written // total > int(file[6:11]):
            save_file(held, folder / file, metadata={"format": "pt"})
            held = {}
    for name, entries in component_entries(config).items():
        torch.save(
            {entry.source: weights(entry.source_shape(ours)) for entry in entries}, folder / f"{name}--1_checkpoint.pt"
        )
    language = config.language
    Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "▁": language.empty}, unk_token="<unk>")).save(
        str(folder / "tokenizer.json")
    )
    units, state = ({"q01": [-1.0] * width, "q99": [1.0] * width} for width in (config.action_dim, config.proprio_dim))
    towers = (config.dino, config.siglip)
    for file, content in (
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map}),
        ("dataset_statistics.json", {"noise": {"action": units, "proprio": state}}),
        ("preprocessor_config.json", {"means": [t.mean for t in towers], "stds": [t.std for t in towers]}),
        ("config.json", {
            "vision_backbone_id": "dinosiglip-vit-so-224px", "image_sizes": [config.image_size] * 2,
            "text_config": {
                "hidden_size": language.width, "num_hidden_layers": language.layers, "vocab_size": language.vocabulary,
                "num_attention_heads": language.heads, "intermediate_size": language.mlp_width,
            },
        }),
    ):  # fmt: skip
        (folder / file).write_text(json.dumps(content), encoding="utf-8")


def measured(step: str, place: Path, shard_bytes: int) -> dict[str, Any]:
    """One step in this process: seconds, CPU seconds, and by how many MiB memory grew at its peak."""
    from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
    from avavla_ray.policy.openvla.exchange import export_checkpoint, import_checkpoint, policy_of
    from avavla_ray.policy.openvla.source import open_source

    published, ours, again, back = (place / name for name in ("published", "ours", "again", "back"))
    work: Callable[[], Any]
    if step == "import":
        source = open_source(published)
        work = partial(import_checkpoint, source, policy_of(source), ours, provenance={}, shard_bytes=shard_bytes)
    elif step == "save":
        loaded = load_checkpoint(ours, verify=False)
        work = partial(
            save_checkpoint, again, loaded.policy, loaded.all_statistics, stage="none", provenance={},
            shard_bytes=shard_bytes,
        )  # fmt: skip
    elif step == "export":
        work = partial(export_checkpoint, ours, back)
    else:
        work = partial(load_checkpoint, ours, verify=step == "load")
    # The kernel's own high-water mark, put back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, cpu, wall = _resident("VmRSS"), time.process_time(), time.perf_counter()
    result: Any = work()
    known = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    known["peak_mib"] = _resident("VmHWM") - before
    if step == "load":
        sizes = [parameter.nbytes / MIB for parameter in result.policy.parameters()]
        known |= {"policy_mib": sum(sizes), "largest_tensor_mib": max(sizes)}
    return {f"{step}_{name}": round(value, 2) for name, value in known.items()}


def _resident(field: str) -> float:
    found = re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def differing(published: Path, back: Path) -> list[str]:
    """Weights files of the published layout that did not come back to the bit."""
    import torch

    wrong = [path.name for path in published.glob("*.safetensors") if sha256(path) != sha256(back / path.name)]
    for path in published.glob("*.pt"):
        before, after = (torch.load(place / path.name, weights_only=True) for place in (published, back))
        if before.keys() != after.keys() or not all(torch.equal(before[name], after[name]) for name in before):
            wrong.append(path.name)
    return sorted(wrong)


def main(settings: Settings) -> None:
    if settings.folder is not None:
        settings.folder.mkdir(parents=True, exist_ok=True)
    shard_bytes = min(settings.shard_mib, 64 if settings.quick else settings.shard_mib) * MIB
    numbers: dict[str, Any] = {"quick": settings.quick, "shard_mib": shard_bytes // MIB}
    with tempfile.TemporaryDirectory(prefix="checkpoints-", dir=settings.folder) as temporary:
        place = Path(temporary)
        check_space(place, 1_000_000_000 if settings.quick else 47_000_000_000)
        # Fresh processes, so that none inherits memory from the one before; spawned, as torch has threads.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
            processes.submit(write_published, place / "published", settings.quick).result()
            numbers["published_mib"] = round(sum(path.stat().st_size for path in (place / "published").iterdir()) / MIB)
            for step in ("import", "load", "save", "export") + (() if settings.quick else ("load_unverified",)):
                numbers |= processes.submit(measured, step, place, shard_bytes).result()
                if step == "save":
                    shutil.rmtree(place / "again")
            wrong = processes.submit(differing, place / "published", place / "back").result()
    numbers["export_identical"] = not wrong
    for name, value in numbers.items():
        print(f"{name:24} {value}")
    if settings.json is not None:
        write_json(settings.json, numbers)
    if wrong:
        raise SystemExit(f"exported weights differ from the published ones: {', '.join(wrong)}")


if __name__ == "__main__":
    run_job(main, Settings)
