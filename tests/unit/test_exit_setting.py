import json

import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import (
    ExitSetting,
    exit_settings,
    families,
    family,
    load_exit_preset,
    save_exit_preset,
)
from avavla_ray.policy.config import preset
from avavla_ray.policy.latent_loop import LatentLoop
from avavla_ray.policy.thresholds import exit_limits
from tests.support.policies import random_belief, random_inputs, stirred_policy, tiny

TINY = preset("tiny")
K = TINY.latent.max_steps


def test_labels_and_titles_are_unique_and_short() -> None:
    by_depth = (0.3, 0.4, 0.5, 0.6)
    settings = [
        ExitSetting(0.55), ExitSetting(by_depth), ExitSetting(None, 5),
        ExitSetting(0.55, families=(("open", 0.6),)), ExitSetting(0.55, families=(("open", by_depth),)),
    ]  # fmt: skip
    assert [s.label for s in settings] == [
        "threshold_0.55", "threshold_0.30_0.40_0.50_0.60", "depth_5", "threshold_0.55_open_0.60",
        "threshold_0.55_open_0.30_0.40_0.50_0.60",
    ]  # fmt: skip
    assert [s.title for s in settings] == [
        "0.55", "0.30/0.40/0.50/0.60", "fixed depth 5", "0.55, open 0.60", "0.55, open 0.30/0.40/0.50/0.60",
    ]  # fmt: skip


def test_a_family_is_what_the_instruction_says_to_do_first() -> None:
    assert family("Open the middle drawer of the cabinet") == "open"
    assert families(["pick up the soup", "turn on the stove", "pick up the milk"]) == ("pick", "turn")
    setting = ExitSetting(0.5, families=(("open", 0.7),))
    assert setting.of("open the drawer").decide_options() == {"exit_threshold": 0.7}
    assert setting.of("pick up the soup").decide_options() == {"exit_threshold": 0.5}
    assert ExitSetting(fixed_depth=0).of("open it").decide_options() == {"depth": 0}
    with pytest.raises(InputError, match="take `of` it first"):
        setting.decide_options()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either a threshold or a fixed depth"),
        ({"exit_threshold": 0.5, "fixed_depth": 1}, "either"),
        ({"exit_threshold": 0.555}, "0.555: give a multiple of 0.01"),
        ({"exit_threshold": (0.5, 1.2)}, r"1.2 is outside \[0, 1\]"),
        ({"fixed_depth": 1, "families": (("open", 0.5),)}, "not with a fixed depth"),
        ({"exit_threshold": 0.5, "families": (("open", 0.5), ("open", 0.6))}, "give each once"),
        ({"exit_threshold": 0.5, "families": (("open", 0.123),)}, "0.123"),
    ],
)
def test_what_is_no_setting_is_refused(given, message) -> None:
    with pytest.raises(InputError, match=message):
        ExitSetting(**given)


def test_a_setting_fits_its_policy_or_is_refused() -> None:
    ExitSetting((0.5,) * (K - 1)).check(TINY)
    with pytest.raises(InputError, match=f"asks its gate after {K - 1} latent steps"):
        exit_settings([(0.5,) * K], [], TINY)
    with pytest.raises(InputError, match="give --thresholds or --depths"):
        exit_settings([], [], TINY)


def test_presets_come_back_as_they_went(tmp_path) -> None:
    path = tmp_path / "exit.json"
    for setting in (ExitSetting(0.5), ExitSetting((0.1, 0.2), families=(("open", (0.3, 0.4)),)), ExitSetting(None, 3)):
        save_exit_preset(path, setting, success_rate=0.9)
        assert load_exit_preset(path) == setting
    path.write_text("{}")
    with pytest.raises(InputError, match="is no exit preset"):
        load_exit_preset(path)
    with pytest.raises(InputError, match="can't be read"):
        load_exit_preset(tmp_path / "absent.json")
    for torn in ({}, {"families": []}, {"families": {}, "exit_threshold": 0.5}):
        path.write_text(json.dumps({"format": "avavla exit preset 1", **torn}))
        with pytest.raises(InputError, match="is not whole"):
            load_exit_preset(path)
    path.write_text(json.dumps({**dict.fromkeys(("fixed_depth",)), "format": "avavla exit preset 1", "families": {},
                                "exit_threshold": "0.5"}))  # fmt: skip
    with pytest.raises(InputError, match="give a number"):
        load_exit_preset(path)


def test_thresholds_are_exact_multiples_of_a_hundredth() -> None:
    setting = ExitSetting(0.1 + 0.2, families=(("open", (0.7 - 0.1, 0.3)),))
    assert setting == ExitSetting(0.3, families=(("open", (0.6, 0.3)),))
    assert setting.of("open it").decide_options() == {"exit_threshold": (0.6, 0.3)}
    assert ExitSetting(1).exit_threshold == 1.0


def test_each_sample_and_step_has_its_own_threshold() -> None:
    """Against a loop over samples and steps that knows nothing of batches."""
    torch.manual_seed(0)
    loop = LatentLoop(TINY.latent)
    torch.nn.init.normal_(loop.exit_gate.leave[1].weight)
    torch.nn.init.normal_(loop.update_policy.mean.weight)
    B = 12
    context, z0 = loop.context(torch.randn(B, TINY.latent.encoding_width)), torch.randn(B, TINY.latent.width)
    limits = torch.rand(B, K - 1)
    with torch.no_grad():
        full = loop.think(context, z0, steps=K, exit_threshold=None)
        trace = loop.think(context, z0, steps=K, exit_threshold=limits)
    for row in range(B):
        left = [k + 1 for k in range(K - 1) if full.exit_score[row, k] > limits[row, k]]
        assert trace.steps[row] == (left[0] if left else K)
    assert len(set(trace.steps.tolist())) > 2


def test_equal_thresholds_are_one_threshold() -> None:
    policy = stirred_policy(tiny())
    inputs, K = random_inputs(policy.config, 6), policy.config.latent.max_steps
    belief = random_belief(policy, 6)
    one = policy.decide(inputs, belief, exit_threshold=0.5)
    for threshold in ((0.5,) * (K - 1), torch.full((6, K - 1), 0.5)):
        again = policy.decide(inputs, belief, exit_threshold=threshold)
        assert torch.equal(one.chunk, again.chunk)
        assert torch.equal(one.trace.steps, again.trace.steps)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ((0.5,), "is asked after the first"),
        (torch.full((2, K - 1), 1.5), "not all in"),
        (torch.full((3, K - 1), 0.5), r"need \(2, 4\)"),
        (torch.full((2, K - 1), float("nan")), "not all in"),
        (1.5, "outside"),
    ],
)
def test_thresholds_that_are_none_are_refused(threshold, message) -> None:
    with pytest.raises(InputError, match=message):
        exit_limits(threshold, 2, K, torch.device("cpu"))
