"""Offline evaluation without Ray: what is walked, what is measured, and what is published of it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.offline import OfflineRecord, load_demonstration, walk
from avavla_ray.evaluation.offline_data import choose_data
from avavla_ray.evaluation.offline_results import OfflineLedger, offline_tables, summarise_offline
from avavla_ray.normalisation import FieldStatistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.training.objective import CloningObjective
from avavla_ray.training.validation import held_out_errors
from tests.support.demonstration_data import make_dataset
from tests.support.policies import stirred_policy, tiny

C = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("offline") / "demos", episodes=6, steps=20)


@pytest.fixture(scope="module")
def reader(folder):
    return EpisodeReader(read_metadata(folder))


@pytest.fixture(scope="module")
def agent(reader):
    return Agent(stirred_policy(tiny()).eval(), reader.metadata.statistics)


@pytest.mark.parametrize("depth", [0, 3])
def test_errors_are_those_that_training_validates_by(reader, agent, depth):
    record = walk(agent, load_demonstration(reader, 1, C), ExitSetting(fixed_depth=depth))
    policy = agent.policy
    expected = held_out_errors(
        CloningObjective(policy), reader, lambda words: policy.preparation.text(words).numpy(), [1], latent_steps=depth
    )
    assert record.steps == reader.metadata.episodes[1].steps == 21
    np.testing.assert_allclose(np.array(record.errors) / record.steps, expected, rtol=1e-5)
    assert record.latent_steps == [depth] * 3
    assert len(record.milliseconds) == len(record.norms) == 3


def test_the_belief_is_carried_along_and_begins_anew_with_each_demonstration(reader, agent, monkeypatch):
    seen = []
    decide = agent.policy.decide

    def listen(inputs, belief, **options):
        seen.append(belief)
        return decide(inputs, belief, **options)

    monkeypatch.setattr(agent.policy, "decide", listen)
    for index in (0, 1):
        walk(agent, load_demonstration(reader, index, C), ExitSetting(exit_threshold=0.55))
    assert [bool(belief.hidden.any()) for belief in seen] == [False, True, True] * 2


def test_errors_in_units_are_those_of_a_robot_that_is_shown_the_stored_pictures(reader, agent):
    proprio, actions = reader.numbers(2)
    agent.policy.statistics = {"demos": agent.statistics}
    belief, errors = None, []
    for start in range(0, len(actions), C):
        decision = agent.policy.act(
            list(reader.images(2, [start])[0]), reader.metadata.episodes[2].instruction, proprio[start], belief, depth=2
        )
        belief = decision.belief
        errors.append(decision.actions[: len(actions) - start] - actions[start : start + C])
    record = walk(agent, load_demonstration(reader, 2, C), ExitSetting(fixed_depth=2))
    np.testing.assert_allclose(record.unit_errors, np.abs(np.concatenate(errors)).sum(0), rtol=1e-5)
    np.testing.assert_allclose(record.norms, [np.sqrt((each**2).sum()) for each in errors], rtol=1e-5)
    assert record.step_norm == pytest.approx(np.sqrt((np.concatenate(errors) ** 2).sum(1)).sum(), rel=1e-5)


def test_the_gripper_is_compared_as_it_is_executed_whatever_its_units(reader, agent):
    demonstration = load_demonstration(reader, 0, C)
    signed = walk(agent, demonstration, ExitSetting(fixed_depth=0))
    closes = []
    belief = agent.policy.initial_belief(1)
    for observation in demonstration.observations:
        decision, executed, _ = agent.decide([observation], belief, depth=0)
        belief = decision.belief
        closes += (executed[0, :, -1] == 1).tolist()
    shown = demonstration.actions[:, -1] == 1
    assert 0 < shown.sum() < len(shown)
    assert signed.gripper_agreements == (np.array(closes[: len(shown)]) == shown).sum()

    opened = stirred_policy(tiny(gripper="open_fraction")).eval()  # the same weights, read otherwise
    fraction = walk(Agent(opened, agent.statistics), demonstration, ExitSetting(fixed_depth=0))
    assert signed.errors[:-1] == fraction.errors[:-1]
    assert signed.errors[-1] != fraction.errors[-1]
    turned = demonstration._replace(actions=np.concatenate([demonstration.actions[:, :-1], (~shown)[:, None]], 1))
    assert walk(agent, turned, ExitSetting(fixed_depth=0)).errors[-1] == pytest.approx(fraction.errors[-1])


def test_weights_that_compute_no_numbers_are_named_instead_of_averaged(reader, agent):
    broken = stirred_policy(tiny()).eval()
    with torch.no_grad():
        next(iter(broken.action_tokens.parameters())).fill_(float("nan"))
    with pytest.raises(InputError, match="no numbers .demonstration synthetic-00-00000, step 0"):
        walk(Agent(broken, agent.statistics), load_demonstration(reader, 0, C), ExitSetting(fixed_depth=0))


def record(episode, task, steps, errors, latent_steps, **changes):
    one = OfflineRecord(
        "depth_1", "demos", episode, task, f"task {task}", steps, errors, [2 * each for each in errors], [1.0, 0.0],
        gripper_agreements=steps // 2, norms=[3.0] * len(latent_steps), step_norm=float(steps),
        latent_steps=latent_steps, milliseconds=[10.0] * len(latent_steps),
    )  # fmt: skip
    return dataclasses.replace(one, **changes)


RECORDS = [
    record("a", 0, 10, [1.0, 3.0], [1, 1]),
    record("b", 1, 30, [9.0, 3.0], [1, 1, 3, 3], norms=[1.0, 1.0, 1.0, 7.0]),
    record("a", 0, 10, [0.0, 0.0], [5, 5], setting="threshold_0.55"),
]
DATA = {"name": "demos", "episodes": 2, "episodes_there": 9, "held_out": True}


def test_summary_weighs_steps_and_decisions_not_episodes():
    result = summarise_offline(ExitSetting(fixed_depth=1), RECORDS, checkpoint="abc")
    assert (result["episodes"], result["decisions"], result["steps"]) == (2, 6, 40)
    assert result["l1_dimensions"] == {"0": 0.25, "1": 0.15}
    assert result["l1_dimensions_in_units"] == {"0": 0.5, "1": 0.3}
    assert result["l1"] == pytest.approx(0.2)
    assert result["l1_first_action"] == pytest.approx((1 + 1) / 6 / 2)
    assert result["norm_error"] == pytest.approx((3 + 3 + 1 + 1 + 1 + 7) / 6)
    assert result["norm_error_median"] == 2.0
    assert result["norm_error_action"] == 1.0
    assert result["gripper_accuracy"] == 0.5
    assert result["mean_latent_steps"] == pytest.approx(10 / 6)
    assert result["exit_histogram"] == {"1": 4, "3": 2}
    assert [(task["task"], task["l1"]) for task in result["tasks"]] == [(0, 0.2), (1, 0.2)]
    assert result["datasets"]["demos"]["steps"] == 40
    json.dumps(result, allow_nan=False)


def test_tables_say_what_was_not_held_out():
    result = summarise_offline(ExitSetting(fixed_depth=1), RECORDS, demonstrations=[DATA])
    other = summarise_offline(ExitSetting(exit_threshold=0.55), RECORDS[2:], demonstrations=[DATA])
    table = offline_tables([result])
    assert "| fixed depth 1  | 0.2000" in table
    assert "demos: 2 of 9 demonstrations, held out of training" in table
    assert "| demos 1 | task 1" in table
    other["demonstrations"] = [DATA | {"held_out": False}]
    assert "NOT known to be held out" in offline_tables([other])


def test_the_ledger_keeps_every_setting_of_a_demonstration(tmp_path):
    ledger = OfflineLedger(tmp_path / "offline.jsonl", {}, resume=False)
    for one in RECORDS:
        ledger.add(one)
    assert list(OfflineLedger(tmp_path / "offline.jsonl", {}, resume=True).records.values()) == RECORDS


@pytest.fixture(scope="module")
def trained(folder, agent, tmp_path_factory):
    """A function that makes a checkpoint which holds out episodes of a data set."""

    def save(held_out, names=("libero_object",)):
        place = tmp_path_factory.mktemp("checkpoint")
        statistics = {name: dataclasses.replace(agent.statistics, name=name) for name in names}
        save_checkpoint(place, agent.policy, statistics, stage="bc", provenance={}, extra={"held_out": held_out})
        return load_checkpoint(place)

    return save


def test_the_held_out_episodes_are_chosen_where_the_data_set_is_the_one(folder, trained):
    names = [info.episode for info in read_metadata(folder).episodes]
    (chosen,) = choose_data([folder], trained({"libero_object": [names[4], names[1]]}))
    assert (chosen.episodes, chosen.held_out) == ([1, 4], True)
    assert chosen.described()["episodes_there"] == 6
    for elsewhere in ({}, {"libero_goal": names[:2]}, {"libero_object": [names[0], "of-another-set"]}):
        (chosen,) = choose_data([folder], trained(elsewhere))
        assert (chosen.episodes, chosen.held_out) == (list(range(6)), False)
    (chosen,) = choose_data([folder], trained({"libero_object": names}), limit=2)
    assert chosen.episodes == [0, 1]


def test_units_are_those_of_the_data_set_or_the_ones_that_are_named(folder, trained):
    several = trained({}, ("libero_goal", "libero_object"))
    assert choose_data([folder], several)[0].statistics.name == "libero_object"
    assert choose_data([folder], several, unnorm_key="libero_goal")[0].statistics.name == "libero_goal"
    assert choose_data([folder], trained({}, ("bridge",)))[0].statistics.name == "bridge"
    with pytest.raises(InputError, match="name one of bridge, libero_goal"):
        choose_data([folder], trained({}, ("bridge", "libero_goal")))


@pytest.mark.parametrize(
    ("sources", "tasks", "message"),
    [(0, (), "give --demos"), (2, (), "called 'libero_object' too"), (1, (3,), "no episode of the task.s. 3")],
)
def test_data_that_cannot_be_walked_is_refused(folder, trained, sources, tasks, message):
    with pytest.raises(InputError, match=message):
        choose_data([folder] * sources, trained({}), tasks=tasks)


def test_the_same_demonstrations_elsewhere_are_known_again_and_others_are_not(folder, trained, tmp_path):
    checkpoint = trained({})
    same = make_dataset(tmp_path / "moved", episodes=6, steps=20)
    other = make_dataset(tmp_path / "other", episodes=6, steps=21)
    identities = [choose_data([place], checkpoint)[0].identity() for place in (folder, same, other)]
    assert identities[0] == identities[1] != identities[2]


def test_a_data_set_of_another_robot_is_refused(folder, tmp_path):
    policy = stirred_policy(tiny(action_dim=6))
    narrow = FieldStatistics.of(np.zeros((4, 6)))
    statistics = dataclasses.replace(read_metadata(folder).statistics, action=narrow)
    save_checkpoint(tmp_path, policy, statistics, stage="bc", provenance={})
    with pytest.raises(InputError, match=r"expected action statistics of shape \(6,\), got \(7,\)"):
        choose_data([folder], load_checkpoint(tmp_path))
