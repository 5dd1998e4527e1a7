import dataclasses
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
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from avavla_ray.policy.config import LoraConfig
from avavla_ray.policy.openvla.exchange import count_published, count_tensors, export_checkpoint, import_checkpoint
from avavla_ray.policy.openvla.prompt import PromptTokenizer
from avavla_ray.policy.openvla.source import Parallel, open_source
from avavla_ray.policy.types import PolicyInputs
from jobs import import_openvla
from tests.support.openvla_folder import SMALL, import_and_load, tiny_policy, write_published
from tests.support.openvla_weights import Sizes
from tests.support.policies import some_statistics

ROOT = Path(__file__).resolve().parents[2]
INDEX = "model.safetensors.index.json"


def _inputs(loaded: Checkpoint) -> PolicyInputs:
    """Two decisions with prompts of different length."""
    config, generator = loaded.policy.config, torch.Generator().manual_seed(3)
    V, S = config.backbone.num_cameras, config.backbone.image_size
    images = torch.randint(0, 256, (2, V, S, S, 3), dtype=torch.uint8, generator=generator)
    text = PromptTokenizer(config.tokenizer, config.backbone).batch(["pick up bowl", "place it"])
    return PolicyInputs(images, text.ids, torch.randn(2, config.proprio_dim, generator=generator))


def _shards(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


@pytest.mark.parametrize("oft", [False, True])
def test_export_gives_back_every_tensor_and_file_to_the_bit(tmp_path: Path, oft: bool) -> None:
    tensors = write_published(tmp_path / "published", oft=oft, dtype=torch.bfloat16)
    ticks: list[None] = []
    source = open_source(tmp_path / "published")
    import_checkpoint(
        source, tiny_policy(source), tmp_path / "ours", provenance={}, shard_bytes=200_000,
        tick=lambda: ticks.append(None),
    )  # fmt: skip
    assert len(ticks) == count_tensors(source)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 3
    ticks.clear()
    export_checkpoint(tmp_path / "ours", tmp_path / "back", tick=lambda: ticks.append(None))
    assert len(ticks) == count_published(source.config)
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


@pytest.mark.parametrize("oft", [False, True])
def test_an_imported_policy_decides_as_the_plain_model_until_it_is_trained(tmp_path: Path, oft: bool) -> None:
    write_published(tmp_path / "published", oft=oft)
    loaded = import_and_load(tmp_path / "published", tmp_path / "ours")
    policy, inputs = loaded.policy, _inputs(loaded)
    assert loaded.stage == "import"
    assert policy.attention is not None
    assert policy.loop is not None
    decided = policy.decide(inputs, policy.initial_belief(2))
    text = PromptTokenizer(policy.config.tokenizer, policy.config.backbone).batch(["pick up bowl", "place it"])
    plain = policy.backbone.model.act(inputs.images, text, inputs.proprio)
    torch.testing.assert_close(decided.chunk, plain.float(), rtol=0, atol=1e-5)
    # Also with what the second decision of an episode begins with, once there has been some thinking.
    again = policy.decide(inputs, decided.belief, depth=policy.config.latent.max_steps)
    torch.testing.assert_close(again.chunk, plain.float(), rtol=0, atol=1e-5)


def test_an_export_can_be_imported_again_and_acts_alike(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    first = import_and_load(tmp_path / "published", tmp_path / "ours")
    assert export_checkpoint(tmp_path / "ours", tmp_path / "back") == [
        "action_tokens", "attention", "conditioning", "encoder", "loop", "value_head"
    ]  # fmt: skip
    again = import_and_load(tmp_path / "back", tmp_path / "again")
    assert first.digest == again.digest
    second = load_checkpoint(tmp_path / "again", dtype=torch.bfloat16)
    kinds = {name.split(".")[0]: tensor.dtype for name, tensor in second.policy.state_dict().items()}
    assert kinds.pop("backbone") == torch.bfloat16
    assert set(kinds.values()) == {torch.float32}
    config = first.policy.config
    assert (config.backbone.images, config.chunk, config.action_dim, config.proprio_dim) == (2, 8, 7, 8)
    belief = first.policy.initial_belief(2)
    a, b = (loaded.policy.decide(_inputs(first), belief).chunk for loaded in (first, second))
    torch.testing.assert_close(a, b, rtol=0, atol=0.1)  # float32 against bfloat16


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    policy = import_and_load(tmp_path / "published", tmp_path / "ours").policy
    path = tmp_path / "published" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {f"w{i}": 1000 + i for i in range(SMALL.vocabulary)}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="the model 704: they do not belong together"):
        tiny_policy(open_source(tmp_path / "published"))
    policy.config = dataclasses.replace(policy.config, tokenizer="no tokenizer")
    save_checkpoint(tmp_path / "broken", policy, some_statistics(), stage="bc", provenance={})
    with pytest.raises(InputError, match=r"broken/tokenizer.json is not a tokenizer"):
        load_checkpoint(tmp_path / "broken")


def test_a_plain_import_has_no_adaptive_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "published", oft=True)
    job = import_openvla.Settings(tmp_path / "published", tmp_path / "plain", adaptive=False)
    import_openvla.main(job)
    assert "to be trained: nothing that acts\n" in capsys.readouterr().out
    policy = load_checkpoint(tmp_path / "plain").policy
    assert policy.attention is None
    assert policy.loop is None
    assert not list(policy.action_tokens.parameters())
    assert policy.conditioning is None


def test_openvla_becomes_the_start_of_oft(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = write_published(tmp_path / "published", dtype=torch.bfloat16)
    start = import_openvla.Settings(tmp_path / "published", tmp_path / "job", parallel=True, chunk=4, proprio_dim=6)
    import_openvla.main(start)
    said = capsys.readouterr().out
    assert "OpenVLA-OFT, 2 images, crop 0.9, chunk 4" in said
    assert "fresh from seed 0, to be trained: attention, " in said
    assert "backbone.model.proprio, backbone.model.head" in said
    assert load_checkpoint(tmp_path / "job").policy.config.proprio_dim == 6
    source = open_source(tmp_path / "published", parallel=Parallel(chunk=4))
    for name, seed in (("one", 1), ("same", 1), ("two", 2)):
        import_checkpoint(source, tiny_policy(source), tmp_path / name, provenance={}, seed=seed)
    one, same, two = (load_checkpoint(tmp_path / name) for name in ("one", "same", "two"))
    assert {"backbone.model.proprio", "backbone.model.head", "loop"} <= set(one.extra["fresh"]["parts"])
    assert one.digest == same.digest != two.digest
    model = one.policy.backbone.model
    assert torch.equal(model.projector.fc1.weight, tensors["projector.fc1.weight"])
    assert model.head.fc1.weight.dtype == torch.bfloat16
    chunk, _, _ = one.policy.clone(_inputs(one), one.policy.initial_belief(2), latent_steps=0)
    assert chunk.shape == (2, 4, 7)
    export_checkpoint(tmp_path / "one", tmp_path / "back")
    back = open_source(tmp_path / "back", chunk=4)
    assert back.fresh == ()
    assert torch.equal(back.components["action_head"].tensors["model.fc1.weight"], model.head.fc1.weight)
    with pytest.raises(InputError, match="is OpenVLA-OFT"):
        open_source(tmp_path / "back", parallel=Parallel())


def test_a_trained_policy_goes_back_to_the_published_layout(tmp_path: Path) -> None:
    tensors = write_published(tmp_path / "published", oft=True)
    imported = import_and_load(tmp_path / "published", tmp_path / "ours")
    policy, own = imported.policy, some_statistics()
    with torch.no_grad():
        policy.backbone.model.projector.fc1.bias += 1
        # The class token's position, which the layout does not have: it is part of the token there.
        policy.backbone.model.vision.dino.embeddings.position_embeddings[:, 0] += 1
        policy.value_head.layers[0].bias += 1
    save_checkpoint(tmp_path / "bc", policy, own, stage="bc", provenance={}, origin=tmp_path / "ours")
    save_checkpoint(tmp_path / "ppo", policy, own, stage="ppo", provenance={}, origin=tmp_path / "bc", extra={"n": 1})
    trained = load_checkpoint(tmp_path / "ppo")
    assert trained.extra["n"] == 1
    assert trained.policy.config == policy.config
    assert trained.policy.config.tokenizer == (tmp_path / "published" / "tokenizer.json").read_text()
    export_checkpoint(tmp_path / "ppo", tmp_path / "back")
    back = _shards(tmp_path / "back")
    moved = {"projector.fc1.bias", "vision_backbone.featurizer.cls_token"}
    assert {key for key in tensors if not torch.equal(back[key], tensors[key])} == moved
    for name in moved:
        assert torch.equal(back[name], tensors[name] + 1)
    again = import_and_load(tmp_path / "back", tmp_path / "again")
    assert list(again.all_statistics) == [own.name]
    assert again.statistics.action.q99.tolist() == own.action.q99.tolist()
    save_checkpoint(tmp_path / "bare", policy, own, stage="bc", provenance={})
    load_checkpoint(tmp_path / "bare")
    with pytest.raises(InputError, match="not imported"):
        export_checkpoint(tmp_path / "bare", tmp_path / "no")
    assert not (tmp_path / "no").exists()
    export_checkpoint(tmp_path / "bare", tmp_path / "no", origin=tmp_path / "ours")
    without = _shards(tmp_path / "no")
    assert all(torch.equal(without[name], back[name]) for name in back)
    import_openvla.main(import_openvla.Settings(tmp_path / "published", tmp_path / "chunk4", chunk=4, adaptive=False))
    with pytest.raises(InputError, match="another geometry"):
        export_checkpoint(tmp_path / "bare", tmp_path / "not", origin=tmp_path / "chunk4")


def test_a_gripper_in_our_units_is_exported_in_those_of_openvla(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    imported = import_and_load(tmp_path / "published", tmp_path / "ours")
    policy, own = imported.policy, some_statistics()
    policy.config = dataclasses.replace(policy.config, gripper="signed")
    inputs, belief = _inputs(imported), policy.initial_belief(2)
    with torch.no_grad():  # so that it opens and closes
        policy.backbone.model.head.fc2.bias[-1] -= policy.decide(inputs, belief).chunk[..., -1].mean()
    save_checkpoint(tmp_path / "bc", policy, own, stage="bc", provenance={}, origin=tmp_path / "ours")
    export_checkpoint(tmp_path / "bc", tmp_path / "back")
    again = import_and_load(tmp_path / "back", tmp_path / "again")
    assert again.policy.config.gripper == "open_fraction"
    signed = load_checkpoint(tmp_path / "bc")
    before, after = (loaded.policy.decide(inputs, belief).chunk for loaded in (signed, again))
    torch.testing.assert_close(after[..., :-1], before[..., :-1], rtol=0, atol=1e-6)
    torch.testing.assert_close(after[..., -1], (1 - before[..., -1]) / 2, rtol=0, atol=1e-6)
    commands = [
        Agent(loaded.policy, loaded.statistics).actions(chunk) for loaded, chunk in ((signed, before), (again, after))
    ]
    assert set(commands[0][..., -1].flat) == {-1.0, 1.0}
    assert (commands[0][..., -1] == commands[1][..., -1]).all()
    found = again.statistics.action
    assert found.minimum[-1] == (1 - own.action.maximum[-1]) / 2
    assert found.q99[-1] == (1 - own.action.q01[-1]) / 2
    assert found.std[-1] == own.action.std[-1] / 2
    assert found.q99[:-1].tolist() == own.action.q99[:-1].tolist()
    scaled = dataclasses.replace(own, action=dataclasses.replace(own.action, mask=own.action.mask | True))
    save_checkpoint(tmp_path / "scaled", policy, scaled, stage="bc", provenance={}, origin=tmp_path / "ours")
    with pytest.raises(InputError, match="normalise the gripper"):
        export_checkpoint(tmp_path / "scaled", tmp_path / "no")


def test_adapters_are_kept_and_have_to_be_folded_before_export(tmp_path: Path) -> None:
    lora = pytest.importorskip("avavla_ray.policy.lora")
    write_published(tmp_path / "published", oft=True)
    policy = import_and_load(tmp_path / "published", tmp_path / "ours").policy
    lora.adapt(policy, LoraConfig(rank=2))
    with torch.no_grad():
        for parameter in lora.lora_parameters(policy.backbone):
            parameter.normal_(std=0.1)
    save_checkpoint(tmp_path / "bc", policy, some_statistics(), stage="bc", provenance={}, origin=tmp_path / "ours")
    loaded = load_checkpoint(tmp_path / "bc", dtype=torch.bfloat16).policy
    for kept, saved in zip(*(lora.lora_parameters(p.backbone) for p in (loaded, policy)), strict=True):
        assert kept.dtype == torch.float32
        assert torch.equal(kept, saved)
    assert len(lora.frozen_parameters(loaded.backbone)) == len(lora.frozen_parameters(policy.backbone)) > 0
    with pytest.raises(InputError, match="LoRA"):
        export_checkpoint(tmp_path / "bc", tmp_path / "back")
    lora.merge(policy)
    with pytest.raises(InputError, match="unmerge"):
        save_checkpoint(tmp_path / "merged", policy, some_statistics(), stage="bc", provenance={})
    save_checkpoint(
        tmp_path / "folded", lora.fold(policy), some_statistics(), stage="bc", provenance={}, origin=tmp_path / "bc"
    )
    export_checkpoint(tmp_path / "folded", tmp_path / "back")


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
        (lambda f: _edit(f / "config.json", norm_stats={"x": {"action": {"q01": [0.0]}}}), "x has no usable"),
        (lambda f: (f / "preprocessor_config.json").write_text("{}"), "means and stds"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda f: torch.save({}, f / "noisy_action_projector--1_checkpoint.pt"), "diffusion"),
        (lambda f: torch.save({}, f / "vision_backbone--1_checkpoint.pt"), "FiLM"),
        (lambda f: (f / "action_head--1_checkpoint.pt").write_bytes(b"no"), "does not hold weights"),
        (lambda f: (f / "action_head--1_checkpoint.pt").write_bytes(b""), "does not hold weights"),
        (lambda f: (f / "action_head--1_checkpoint.pt").write_text("not found\n"), "does not hold weights"),
        (lambda f: (f / "action_head--1_checkpoint.pt").write_text("<html>\n"), "does not hold weights"),
        (lambda f: torch.save({1: torch.zeros(1)}, f / "action_head--1_checkpoint.pt"), "weights by name"),
        (lambda f: _edit(f / INDEX, weight_map={"x": ".."}), "no weight_map of file names"),
        (lambda f: _edit(f / INDEX, weight_map={"x": "../model.safetensors"}), "no weight_map of file names"),
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
            import_and_load(tmp_path / "published", tmp_path / "ours")

    def full(*_: object, **__: object) -> None:
        # What safetensors raises, measured on a full tmpfs.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("avavla_ray.policy.tensors.save_file", full)
    with pytest.raises(InputError, match="no space left on the disk"):
        import_and_load(tmp_path / "published", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path)
    torch.save({"module.fc1.weight": print}, tmp_path / "proprio_projector--1_checkpoint.pt")
    with pytest.raises(InputError, match="does not hold weights"):
        open_source(tmp_path)


def test_altered_and_published_folders_are_refused(tmp_path: Path) -> None:
    write_published(tmp_path / "published")
    import_and_load(tmp_path / "published", tmp_path / "ours")
    path = tmp_path / "ours" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="altered"):
        load_checkpoint(tmp_path / "ours")
    with pytest.raises(InputError, match="import_openvla"):
        load_checkpoint(tmp_path / "published")


def test_statistics_of_one_of_many_data_sets(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    path = tmp_path / "published" / "dataset_statistics.json"
    content = json.loads(path.read_text())
    # Averages may be missing or unknown; quantiles are what actions are scaled by.
    content["other"]["action"] |= {"mean": [float("nan")] * 7}
    del content["other"]["action"]["std"], content["other"]["proprio"]
    path.write_text(json.dumps(content))
    checkpoint = import_and_load(tmp_path / "published", tmp_path / "ours")
    golden = checkpoint.statistics_of("golden")
    assert golden.action.mask.tolist() == [True] * 6 + [False]
    assert golden.proprio.mask.all()
    assert golden.episodes == 3
    with pytest.raises(InputError, match="golden, other"):
        _ = checkpoint.statistics
    with pytest.raises(InputError, match=r"'other': expected proprio statistics of shape \(8,\), got \(0,\)"):
        checkpoint.statistics_of("other")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    content["golden"]["action"]["q99"][0] = float("inf")
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="golden has no usable statistics"):
        open_source(tmp_path / "published")


_MEASURE = """
import re, sys
from pathlib import Path
from types import SimpleNamespace
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.openvla.exchange import export_checkpoint, import_checkpoint
from avavla_ray.policy.openvla.source import open_source
from tests.support.openvla_folder import tiny_policy

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
config = tiny_policy(source)
print(grown(lambda: import_checkpoint(source, config, output, provenance={}, shard_bytes=16 << 20)))
print(grown(lambda: export_checkpoint(output, back)))
print(grown(lambda: load_checkpoint(output)))
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
    # The file that is written is held, an eighth of all, and some ground; a tensor that is read is let go at once.
    assert 0 < imported < 0.3 * total, f"{imported} MiB to import {total} MiB of weights in 8 shards"
    assert 0 < exported < 0.3 * total, f"{exported} MiB to export {total} MiB of weights in 8 shards"
    assert 0.8 * total < loaded < 1.1 * total, f"{loaded} MiB to load {total} MiB of weights"


def test_job_imports_exports_and_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "published", SMALL, oft=True)
    import_openvla.main(import_openvla.Settings(tmp_path / "published", tmp_path / "ours"))
    said = capsys.readouterr().out
    assert "OpenVLA-OFT, 2 images, crop 0.9, chunk 8" in said
    assert "fresh from seed 0, to be trained: attention, action_tokens, conditioning, encoder, loop, value_head" in said
    import_openvla.main(import_openvla.Settings(tmp_path / "ours", tmp_path / "back", export=True))
    assert "no place for action_tokens, attention, " in capsys.readouterr().out
    assert set(_shards(tmp_path / "back")) == set(_shards(tmp_path / "published"))
    job = [sys.executable, "-m", "jobs.import_openvla", "--checkpoint", "x", "--output", str(tmp_path / "ours")]
    refused = subprocess.run(job, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert refused.returncode == 2
    assert refused.stderr.strip().startswith("error: ")
    assert len(refused.stderr.strip().splitlines()) == 1
    for wrong, complaint in (
        ({"proprio_dim": 7}, "--proprio-dim goes with --parallel"),
        ({"parallel": True, "export": True}, "--parallel goes with an import"),
        ({"images": 2, "export": True}, "--images goes with an import"),
        ({"crop": 1.0, "export": True}, "--crop goes with an import"),
        ({"seed": 1, "export": True}, "--seed goes with an import"),
        ({"adaptive": False, "export": True}, "--no-adaptive goes with an import"),
        ({"shard_gigabytes": 1.0, "export": True}, "--shard-gigabytes goes with an import"),
        ({"chunk": 0}, "--chunk 0: give at least 1"),
        ({"origin": tmp_path / "ours"}, "--origin goes with --export"),
    ):
        with pytest.raises(InputError, match=complaint):
            import_openvla.main(import_openvla.Settings(tmp_path / "published", tmp_path / "new", **wrong))
