"""Folders that would make import or export do what nobody asked for."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.openvla.exchange import export_checkpoint, import_checkpoint
from avavla_ray.policy.openvla.source import Parallel, open_source
from jobs import import_openvla
from tests.support.checkpoints import seal
from tests.support.openvla_folder import SMALL, import_and_load, tiny_policy, write_published
from tests.support.openvla_weights import head_shapes, statistics, weights

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    write_published(folder / "published", oft=True)
    import_and_load(folder / "published", folder / "ours")
    return folder / "ours"


def _edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _place(file: object) -> Callable[[Path], None]:
    """The first tensor lies in `file`."""

    def change(index: Any) -> None:
        index["weight_map"][sorted(index["weight_map"])[0]] = file

    return lambda folder: _edit(folder / "source" / INDEX, change)


def _record(value: object) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "manifest.json", lambda content: content["extra"].update(published=value))


def _component(**change: object) -> Callable[[Path], None]:
    def edit(content: Any) -> None:
        content["extra"]["published"]["components"]["action_head"].update(change)

    return lambda folder: _edit(folder / "manifest.json", edit)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (_place("../victim/notes.safetensors"), "is in '../victim/notes.safetensors'"),
        (_place("/victim.safetensors"), "is in '/victim.safetensors'"),
        (_place(".."), r"is in '\.\.'"),
        (_place(""), "is in ''"),
        (_place(3), "is in 3"),
        (_place("config.json"), "is in 'config.json'"),
        (lambda f: _edit(f / "source" / INDEX, lambda index: index["weight_map"].popitem()), "is missing"),
        (lambda f: _edit(f / "source" / INDEX, lambda i: i["weight_map"].update(x="x.safetensors")), "x is unknown"),
        (lambda f: (f / "source" / INDEX).write_text("[]"), "has no weight_map"),
        (lambda f: (f / "source" / INDEX).write_text("{"), "is not JSON"),
        (lambda f: (f / "source" / "model-00001-of-00003.safetensors").touch(), "would be written twice"),
        (_component(file="proprio_projector--150000_checkpoint.pt"), "would be written twice"),
        (_component(file="../victim/notes.pt"), "does not say what file action_head was"),
        (_component(prefix=3), "does not say what file action_head was"),
        (_record(None), "does not say what file"),
        (_record({"components": []}), "does not say what file"),
        (_record({"components": {"action_head": "x"}}), "does not say what file"),
    ],
)  # fmt: skip
def test_export_writes_what_was_published_and_nowhere_else(
    imported: Path, tmp_path: Path, harm: Callable[[Path], object], complaint: str
) -> None:
    folder = Path(shutil.copytree(imported, tmp_path / "evil"))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "notes.safetensors").write_text("precious")
    harm(folder)
    seal(folder)
    with pytest.raises(InputError, match=complaint) as caught:
        export_checkpoint(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "victim" / "notes.safetensors").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil", "victim"]


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("backbone.model.head.fc2.bias", None, "head.fc2.bias is missing"),
        ("backbone.model.head.fc2.bias", (3,), r"head.fc2.bias has shape \(3,\) instead of \(7,\)"),
        ("attention.head.weight", None, "attention.head.weight is missing"),
        ("unused.vision_backbone.featurizer.norm.bias", (3,), r"norm.bias has shape \(3,\) instead of"),
    ],
)
def test_export_of_weights_that_are_not_those_of_the_configuration(
    imported: Path, tmp_path: Path, name: str, shape: tuple[int, ...] | None, complaint: str
) -> None:
    folder = Path(shutil.copytree(imported, tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors if shape is None else tensors | {name: torch.zeros(shape)}, folder / "model.safetensors")
    seal(folder)
    with pytest.raises(InputError, match=complaint):
        export_checkpoint(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _narrow(content: dict[str, Any], names: list[str], proprio: int | None) -> dict[str, Any]:
    """The named data sets, with another width of proprioception or none."""
    for name in names:
        if proprio is None:
            del content[name]["proprio"]
        else:
            content[name]["proprio"] = {key: values[:proprio] for key, values in content[name]["proprio"].items()}
    return content


@pytest.mark.parametrize("proprio", [7, None])
@pytest.mark.parametrize("several", [False, True])
def test_statistics_of_another_robot_start_a_cloning_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], proprio: int | None, several: bool
) -> None:
    content = json.loads(json.dumps(statistics()))
    if not several:
        del content["other"]
    names = sorted(content)
    _narrow(content, names, proprio)
    write_published(tmp_path / "plain")
    _edit(tmp_path / "plain" / "config.json", lambda config: config.update(norm_stats=content))
    import_openvla.main(import_openvla.Settings(tmp_path / "plain", tmp_path / "start", parallel=True))
    said = capsys.readouterr().out
    assert f"warning: statistics of {', '.join(names)} do not fit" in said
    assert "--proprio-dim" in said
    start = load_checkpoint(tmp_path / "start")
    with pytest.raises(InputError, match=r"'golden': expected proprio statistics of shape \(8,\)"):
        start.statistics_of("golden")
    # A policy that is not to be trained any more is of no use without its units.
    write_published(tmp_path / "oft", oft=True)
    (tmp_path / "oft" / "dataset_statistics.json").write_text(json.dumps(content))
    source = open_source(tmp_path / "oft")
    with pytest.raises(InputError, match=r"no data set's statistics fit .*'golden': expected proprio"):
        import_checkpoint(source, tiny_policy(source), tmp_path / "no", provenance={})
    assert not (tmp_path / "no").exists()


def test_one_data_set_of_the_policys_robot_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "oft", oft=True)
    _edit(tmp_path / "oft" / "dataset_statistics.json", lambda content: _narrow(content, ["other"], 7))
    import_openvla.main(import_openvla.Settings(tmp_path / "oft", tmp_path / "ours", adaptive=False))
    assert (
        "warning: statistics of other do not fit 7 actions and proprioception of 8 numbers:" in capsys.readouterr().out
    )
    assert load_checkpoint(tmp_path / "ours").statistics_of("golden").name == "golden"


def test_a_width_given_for_the_statistics_fits_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "plain")
    content = _narrow(json.loads(json.dumps(statistics())), ["golden", "other"], 7)
    _edit(tmp_path / "plain" / "config.json", lambda config: config.update(norm_stats=content))
    import_openvla.main(
        import_openvla.Settings(tmp_path / "plain", tmp_path / "start", parallel=True, proprio_dim=7, adaptive=False)
    )
    assert "warning" not in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "start").statistics_of("other").proprio.q01.shape == (7,)


def test_a_robot_with_two_arms_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path, oft=True)
    shapes = head_shapes(dataclasses.replace(SMALL, action_dim=14))
    state = {f"module.{name}": torch.from_numpy(value) for name, value in weights(shapes).items()}
    torch.save(state, tmp_path / "action_head--150000_checkpoint.pt")
    with pytest.raises(InputError, match=r"expected 7 action dimensions, got 14: .*ALOHA"):
        open_source(tmp_path)


@pytest.mark.parametrize(("oft", "separate"), [(False, False), (True, True)])
def test_half_precision_is_refused_by_name(tmp_path: Path, oft: bool, separate: bool) -> None:
    write_published(tmp_path, oft=oft, dtype=torch.float32 if separate else torch.float16)
    if separate:
        path = tmp_path / "action_head--150000_checkpoint.pt"
        torch.save({name: value.half() for name, value in torch.load(path, weights_only=True).items()}, path)
    with pytest.raises(InputError, match=r"holds (F16|torch.float16): weights are float32 or bfloat16 here, convert"):
        open_source(tmp_path)


def test_one_tensor_of_integers_is_refused(tmp_path: Path) -> None:
    write_published(tmp_path)
    path = tmp_path / "model-00002-of-00003.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file(tensors | {name: tensors[name].to(torch.int32)}, path)
    with pytest.raises(InputError, match="model-00002-of-00003.safetensors holds I32"):
        open_source(tmp_path)


def test_the_crop_is_recorded_and_has_to_be_a_share(tmp_path: Path) -> None:
    write_published(tmp_path / "published")
    for name, given in (("usual", {}), ("whole", {"crop": 1.0})):
        settings = import_openvla.Settings(tmp_path / "published", tmp_path / name, adaptive=False, **given)
        import_openvla.main(settings)
    usual, whole = (load_checkpoint(tmp_path / name).policy for name in ("usual", "whole"))
    assert (usual.config.backbone.crop, whole.config.backbone.crop) == (0.9, 1.0)
    picture = torch.randint(0, 256, (56, 56, 3), dtype=torch.uint8).numpy()
    assert (whole.preparation.images([picture])[0] == picture).all()
    assert (usual.preparation.images([picture])[0] != picture).any()
    start = open_source(tmp_path / "published", parallel=Parallel(), crop=0.8)
    assert start.config.crop == 0.8
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="crop .* is outside"):
            open_source(tmp_path / "published", crop=wrong)
