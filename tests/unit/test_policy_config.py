from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from actors.cloning_job import Settings, choose_policy
from avavla_ray.errors import InputError
from avavla_ray.policy.config import ablated, check_config, check_depth, preset, without_adaptive
from avavla_ray.policy.config_json import from_json, to_json
from avavla_ray.training.settings import recipe
from tests.support.policies import tiny


def test_unknown_preset_suggests_the_spelling():
    with pytest.raises(InputError, match="did you mean 'small'"):
        preset("smal")


@pytest.mark.parametrize("name", ["small", "small_fine", "tiny"])
def test_presets_survive_json(name):
    config = preset(name)
    check_config(config)
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_a_field_that_an_older_writer_did_not_know_takes_its_default():
    value = to_json(tiny(latent__max_steps=3))
    del value["attention"]["keep_ratio"]
    assert from_json(value) == tiny(latent__max_steps=3)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("backbone", "colour"), 1, "unknown fields colour"),
        (("backbone", "width"), "wide", "width has the value 'wide'"),
        (("latent", "enabled"), 1, "enabled has the value 1"),
        (("chunk",), 8.5, "chunk has the value 8.5"),
        (("latent",), [], "latent is not an object"),
        (("backbone", "stem_channels"), 5, "stem_channels has the value 5"),
    ],
)
def test_json_of_another_kind_is_refused(path, value, complaint):
    tree = to_json(tiny())
    node = tree
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    with pytest.raises(InputError, match=complaint):
        from_json(tree)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"backbone__heads": 5}, "multiple of 5"),
        ({"backbone__image_size": 40}, "multiple of 16"),
        ({"backbone__layers": 1}, "too few|at least 2"),
        ({"latent__max_steps": 0}, "at least 1"),
        ({"latent__exit_threshold": 1.5}, r"outside \[0, 1\]"),
        ({"attention__keep_ratio": -0.1}, r"outside \[0, 1\]"),
        ({"attention__sink_tokens": 99}, "visual tokens"),
    ],
)
def test_inconsistent_configurations_are_refused(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        check_config(tiny(**changes))


def test_depth_has_limits():
    check_depth(tiny(), 0)
    check_depth(tiny(), 5)
    for depth in (-1, 6):
        with pytest.raises(InputError, match="outside 0..5"):
            check_depth(tiny(), depth)
    with pytest.raises(InputError, match="no latent loop"):
        check_depth(tiny(latent__enabled=False), 1)


def test_the_configuration_imports_without_torch():
    program = "import sys, avavla_ray.policy.config as c; c.preset('small'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_thinking_that_reaches_no_action_is_refused():
    with pytest.raises(InputError, match="thinking would change nothing"):
        check_config(tiny(latent__conditioning=False))
    check_config(without_adaptive(tiny()))


def test_ablations_leave_out_what_they_name() -> None:
    config = preset("tiny")
    assert ablated(config, ()) == config
    assert not ablated(config, ("ava",)).attention.enabled
    assert not ablated(config, ("belief",)).recurrent
    bare = ablated(config, ("latent", "ava", "belief"))
    assert (bare.latent.enabled, bare.attention.enabled, bare.recurrent) == (False, False, False)
    check_config(bare)
    with pytest.raises(InputError, match="part of the policy"):
        ablated(config, ("vision",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"without": ("ava",), "checkpoint": Path("somewhere")}, "build another policy than that of --checkpoint"),
        ({"latent_steps": 0}, "latent.max_steps 0: give at least 1"),
    ],
)
def test_a_clone_is_built_without_what_is_left_out_or_refused(words, message) -> None:
    chosen = recipe("tiny")
    built = choose_policy(Settings(demos=("d",), preset="tiny", without=("belief",), latent_steps=10), chosen)
    assert (built.recurrent, built.latent.max_steps, built.attention.enabled) == (False, 10, True)
    with pytest.raises(InputError, match=message):
        choose_policy(Settings(demos=("d",), preset="tiny", **words), chosen)
