import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.exchange import count_published, count_tensors, export_checkpoint, import_checkpoint
from avavla_ray.policy.openvla.folder import open_folder, write_folder
from avavla_ray.policy.openvla.loading import load_openvla
from avavla_ray.policy.openvla.source import Source, open_source
from avavla_ray.policy.openvla.statistics import pick_statistics
from jobs import import_openvla
from tests.support.openvla_folder import SMALL, write_published
from tests.support.openvla_weights import Sizes

ROOT = Path(__file__).resolve().parents[2]
INDEX = "model.safetensors.index.json"


def _import(published: Path, output: Path, **options: int) -> Source:
    source = open_source(published)
    import_checkpoint(source, output, provenance={"commit": "test"}, **options)
    return source


def _shards(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


@pytest.mark.parametrize("oft", [False, True])
def test_export_gives_back_every_tensor_and_file_to_the_bit(tmp_path: Path, oft: bool) -> None:
    tensors = write_published(tmp_path / "published", oft=oft, dtype=torch.bfloat16)
    ticks: list[None] = []
    source = open_source(tmp_path / "published")
    import_checkpoint(source, tmp_path / "ours", provenance={}, shard_bytes=200_000, tick=lambda: ticks.append(None))
    assert len(ticks) == count_tensors(source)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 3
    ticks.clear()
    export_checkpoint(tmp_path / "ours", tmp_path / "back", tick=lambda: ticks.append(None))
    assert len(ticks) == count_published(open_folder(tmp_path / "ours"))
    back = _shards(tmp_path / "back")
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].view(torch.int16), tensor.view(torch.int16)), name
    expected = {path.name for path in (tmp_path / "published").iterdir()} - {"modeling_prismatic.py"}
    assert {path.name for path in (tmp_path / "back").iterdir()} == expected
    for path in (tmp_path / "published").iterdir():
        if path.suffix == ".json":
            assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
        if path.suffix == ".pt":
            before, after = (
                torch.load(place / path.name, weights_only=True) for place in (path.parent, tmp_path / "back")
            )
            assert before.keys() == after.keys()
            assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_export_can_be_imported_again_and_acts_alike(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    _import(tmp_path / "published", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    _import(tmp_path / "back", tmp_path / "again")
    assert open_folder(tmp_path / "ours").digest == open_folder(tmp_path / "again").digest
    first, second = load_openvla(tmp_path / "ours"), load_openvla(tmp_path / "again", dtype=torch.bfloat16)
    assert second.model.dtype == torch.bfloat16
    config = first.folder.config
    assert (config.images, config.chunk, config.action_dim, config.proprio_dim, config.head_blocks) == (2, 8, 7, 8, 2)
    images = torch.randint(0, 256, (1, 2, 56, 56, 3), dtype=torch.uint8)
    text, proprio = first.tokenizer.batch(["pick up bowl"]), torch.zeros(1, 8)
    a, b = (loaded.model.act(images, text, proprio) for loaded in (first, second))
    torch.testing.assert_close(a, b, rtol=0, atol=0.1)  # float32 against bfloat16


def test_class_position_that_training_moved_is_folded_into_the_class_token(tmp_path: Path) -> None:
    tensors = write_published(tmp_path / "published")
    _import(tmp_path / "published", tmp_path / "ours")
    opened = open_folder(tmp_path / "ours")
    name = "vision.dino.embeddings.position_embeddings"
    moved = {key: tensor.clone() for key, tensor in opened.tensors(unused=True)}
    moved[name][:, 0] += 1.0
    write_folder(
        tmp_path / "trained", opened.config, moved.items(), opened.statistics, tmp_path / "ours" / "tokenizer.json",
        stage="bc", provenance={}, source_files=sorted((tmp_path / "ours" / "source").iterdir()), extra=opened.extra,
    )  # fmt: skip
    export_checkpoint(tmp_path / "trained", tmp_path / "back")
    back, token = _shards(tmp_path / "back"), "vision_backbone.featurizer.cls_token"
    assert torch.equal(back[token], tensors[token] + 1.0)
    assert {key for key in tensors if not torch.equal(back[key], tensors[key])} == {token}


def test_missing_unknown_and_misshapen_tensors_are_listed_together(tmp_path: Path) -> None:
    write_published(tmp_path, oft=True, shards=1)
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["language_model.model.norm.weight"]
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    tensors["projector.fc3.bias"] = torch.ones(65)
    save_file(tensors, file)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"weight_map": dict.fromkeys(tensors, file.name)}))
    head = tmp_path / "action_head--150000_checkpoint.pt"
    state = torch.load(head, weights_only=True)
    del state["module.model.fc2.bias"]
    torch.save(state, head)
    with pytest.raises(InputError) as caught:
        open_source(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "language_model.model.norm.weight is missing",
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq is unknown",
        "projector.fc3.bias has shape (65,) instead of (64,)",
        "action_head--150000_checkpoint.pt: model.fc2.bias is missing",
    ):
        assert part in message


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "lacks model-00002-of-00003.safetensors"),
        (lambda f: (f / "model-00002-of-00003.safetensors").write_bytes(b"x" * 99), "does not hold weights"),
        (lambda f: (f / INDEX).write_text("{}"), "no weight_map"),
        (lambda f: (f / INDEX).unlink(), "neither"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: _edit(f / "config.json", vision_backbone_id="clip-vit-l"), "clip-vit-l"),
        (lambda f: _edit(f / "config.json", image_resize_strategy="letterbox"), "letterbox"),
        (lambda f: _edit(f / "config.json", pad_to_multiple_of="64"), "padding_rows has the value '64'"),
        (lambda f: _edit(f / "config.json", norm_stats=None), "no units"),
        (lambda f: _edit(f / "config.json", norm_stats={"x": {"action": {"q01": [0.0]}}}), "x has no action"),
        (lambda f: (f / "preprocessor_config.json").write_text("{}"), "means and stds"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda f: torch.save({}, f / "noisy_action_projector--1_checkpoint.pt"), "diffusion"),
        (lambda f: torch.save({}, f / "vision_backbone--1_checkpoint.pt"), "FiLM"),
        (lambda f: (f / "action_head--1_checkpoint.pt").write_bytes(b"no"), "does not hold weights"),
    ],
)  # fmt: skip
def test_folders_that_are_not_whole_are_refused_in_one_line(tmp_path: Path, damage, message: str) -> None:
    write_published(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_said_before_and_during_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_published(tmp_path / "published")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(InputError, match=r"needs 0\.0 GB, its disk has 0\.0 GB left"):
            _import(tmp_path / "published", tmp_path / "ours")

    def full(*_: object, **__: object) -> None:
        # What safetensors raises, measured on a full tmpfs.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("avavla_ray.policy.tensors.save_file", full)
    with pytest.raises(InputError, match="no space left on the disk"):
        _import(tmp_path / "published", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path)
    torch.save({"module.fc1.weight": print}, tmp_path / "proprio_projector--1_checkpoint.pt")
    with pytest.raises(InputError, match="does not hold weights"):
        open_source(tmp_path)


def test_altered_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    write_published(tmp_path / "published")
    _import(tmp_path / "published", tmp_path / "ours")
    path = tmp_path / "ours" / "model-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="altered"):
        load_openvla(tmp_path / "ours")
    with pytest.raises(InputError, match="import_openvla"):
        load_openvla(tmp_path / "published")
    opened = open_folder(tmp_path / "ours", verify=False)
    write_folder(
        tmp_path / "bare", opened.config, opened.tensors(), opened.statistics, tmp_path / "ours" / "tokenizer.json",
        stage="bc", provenance={},
    )  # fmt: skip
    load_openvla(tmp_path / "bare")
    with pytest.raises(InputError, match="not imported"):
        export_checkpoint(tmp_path / "bare", tmp_path / "back")


def test_statistics_of_one_of_many_data_sets(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    statistics = open_source(tmp_path / "published").statistics
    picked = pick_statistics(statistics, "golden")
    assert picked.action.mask.tolist() == [True] * 6 + [False]
    assert picked.proprio.mask.all()
    with pytest.raises(InputError, match="golden, other"):
        pick_statistics(statistics)
    with pytest.raises(InputError, match="did you mean 'golden'"):
        pick_statistics(statistics, "goldn")


_MEASURE = """
import re, sys
from pathlib import Path
from types import SimpleNamespace
from avavla_ray.policy.openvla.exchange import export_checkpoint, import_checkpoint
from avavla_ray.policy.openvla.loading import load_openvla
from avavla_ray.policy.openvla.source import open_source

def grown(step):
    # The kernel's own high-water mark, put back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kept = step()  # a model stays until the mark is read
    peak = resident("VmHWM")
    return peak - before

def resident(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

published, output, back = map(Path, sys.argv[1:])
source = open_source(published)
print(grown(lambda: import_checkpoint(source, output, provenance={}, shard_bytes=16 << 20)))
print(grown(lambda: export_checkpoint(output, back)))
print(grown(lambda: load_openvla(output)))
"""


def test_memory_stays_near_one_shard(tmp_path: Path) -> None:
    sizes = Sizes(width=256, mlp_width=1024, layers=24, vocabulary=704, image_size=56)
    write_published(tmp_path / "published", sizes, shards=8)
    total = sum(path.stat().st_size for path in (tmp_path / "published").glob("*.safetensors")) >> 20
    ran = subprocess.run(
        [sys.executable, "-c", _MEASURE, *(str(tmp_path / name) for name in ("published", "ours", "back"))],
        capture_output=True, text=True, timeout=120, check=True, cwd=ROOT,
    )  # fmt: skip
    imported, exported, loaded = map(float, ran.stdout.split())
    # A file that is read is mapped, and the one that is written is held: two shards of an eighth each, and some ground.
    assert 0 < imported < 0.4 * total, f"{imported} MiB to import {total} MiB of weights in 8 shards"
    assert 0 < exported < 0.4 * total, f"{exported} MiB to export {total} MiB of weights in 8 shards"
    assert 0.9 * total < loaded < 1.4 * total, f"{loaded} MiB to load {total} MiB of weights"


def test_job_imports_exports_and_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "published", SMALL, oft=True)
    import_openvla.main(import_openvla.Settings(tmp_path / "published", tmp_path / "ours"))
    assert "OpenVLA-OFT, 2 images, chunk 8" in capsys.readouterr().out
    import_openvla.main(import_openvla.Settings(tmp_path / "ours", tmp_path / "back", export=True))
    assert set(_shards(tmp_path / "back")) == set(_shards(tmp_path / "published"))
    job = [sys.executable, "-m", "jobs.import_openvla", "--checkpoint", "x", "--output", str(tmp_path / "ours")]
    refused = subprocess.run(job, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert refused.returncode == 2
    assert refused.stderr.strip().startswith("error: ")
    assert len(refused.stderr.strip().splitlines()) == 1
