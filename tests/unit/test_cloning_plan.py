"""What cloning is refused for, and warned of, before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.policy.config import ablated, preset
from avavla_ray.training.behaviour_cloning import plan
from avavla_ray.training.output import check_output
from avavla_ray.training.settings import parse_stages, recipe
from tests.support.demonstration_data import make_dataset

TINY = preset("tiny")


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("plan") / "demos", episodes=4)


def test_a_run_goes_on_with_the_very_policy_it_was_begun_with(demos: Path, tmp_path: Path) -> None:
    """Without belief it has the same weights, by name and shape: nothing else would notice."""
    chosen = plan(recipe("tiny"), ablated(TINY, ["belief"]), demos, tmp_path / "run")
    check_output(chosen.output, chosen.identity, False)
    plan(recipe("tiny"), ablated(TINY, ["belief"]), demos, tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="policy.recurrent False -> True"):
        plan(recipe("tiny"), TINY, demos, tmp_path / "run", resume=True)
    deeper = replace(TINY, recurrent=False, latent=replace(TINY.latent, max_steps=3))
    with pytest.raises(InputError, match="policy.latent.max_steps 5 -> 3"):
        plan(recipe("tiny"), deeper, demos, tmp_path / "run", resume=True)


def test_pictures_of_another_size_than_the_simulators_will_render_are_said(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(recipe("tiny"), TINY, demos, tmp_path / "run")
    assert "pixels" not in capsys.readouterr().out
    larger = replace(TINY, backbone=replace(TINY.backbone, image_size=64))
    plan(recipe("tiny"), larger, demos, tmp_path / "run")
    assert "pictures of 32 pixels are scaled" in (said := capsys.readouterr().out)
    assert "--image-size 64" in said


def test_a_latent_loop_that_nothing_trains_is_said(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(recipe("tiny"), TINY, demos, tmp_path / "run")
    assert "latent loop" not in capsys.readouterr().out
    plan(recipe("tiny", stages=parse_stages("cloning")), TINY, demos, tmp_path / "run")
    assert "no stage trains the latent loop" in capsys.readouterr().out
