"""What `jobs/evaluate.py` is asked for: suites, exit settings, and what it refuses before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from actors.evaluation_run import EpisodeEvaluation, EvaluationPlan
from actors.evaluation_suites import evaluations
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting, save_exit_preset
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from jobs.evaluate import PAPER, Settings, _check, _exits
from tests.support.policies import some_statistics, stirred_policy, tiny


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="bc", provenance={})
    checkpoint = load_checkpoint(folder)
    return EvaluationPlan(
        checkpoint,
        checkpoint.statistics_of(None),
        (ExitSetting(fixed_depth=1),),
        "BC",
        run_id="run",
        uri="",
        episodes=2,
    )


def test_several_suites_go_to_folders_of_their_own(plan, tmp_path):
    one, other = evaluations(plan, ("tabletop", "tabletop_memory"), tmp_path)
    assert [each.output for each in (one, other)] == [tmp_path / "tabletop", tmp_path / "tabletop_memory"]
    (alone,) = evaluations(plan, ("tabletop",), tmp_path / "alone")
    assert isinstance(alone, EpisodeEvaluation)
    assert alone.output == tmp_path / "alone"


@pytest.mark.parametrize(
    ("changes", "suites", "message"),
    [
        ({}, ("tabletop", "tabletop"), "give each once"),
        ({"tasks": (0,)}, ("tabletop", "tabletop_memory"), "--tasks are of one suite"),
        ({"episodes": 51}, ("tabletop",), "1 to 50 a task"),
        ({}, ("tabeltop",), "did you mean 'tabletop'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_at_once(plan, tmp_path, changes, suites, message):
    with pytest.raises(InputError, match=message):
        evaluations(replace(plan, **changes), suites, tmp_path)


def test_what_a_cpu_has_begun_no_gpu_goes_on_with(plan, tmp_path):
    (evaluation,) = evaluations(plan, ("tabletop",), tmp_path)
    evaluation._ledger.add(evaluation._todo()[0].lost("for the ledger", 1, quarantined=False))
    evaluations(replace(plan, resume=True, servers=2), ("tabletop",), tmp_path)  # servers on the CPU decide alike
    with pytest.raises(InputError, match="another evaluation"):
        evaluations(replace(plan, resume=True, servers=2, server_gpus=0.5), ("tabletop",), tmp_path)


def test_what_is_finished_is_not_played_again_and_its_video_only_if_it_is_gone(plan, tmp_path):
    (evaluation,) = evaluations(replace(plan, tasks=(0, 3)), ("tabletop",), tmp_path)
    first, second, *_ = todo = evaluation._todo()
    assert [(each.task, each.initial_state, each.film) for each in todo] == [
        (0, 0, True), (0, 1, False), (3, 0, True), (3, 1, False),
    ]  # fmt: skip
    for episode in (first, second):
        evaluation._ledger.add(episode.lost("for the ledger", 1, quarantined=False))
    assert [(each.task, each.initial_state) for each in evaluation._todo()] == [(0, 0), (3, 0), (3, 1)]
    evaluation._videos[0].parent.mkdir(parents=True)
    evaluation._videos[0].touch()
    assert [(each.task, each.initial_state) for each in evaluation._todo()] == [(3, 0), (3, 1)]


def test_a_preset_is_evaluated_in_place_of_the_paper_s_thresholds(plan, tmp_path):
    found = ExitSetting(exit_threshold=(0.3, 0.4, 0.5, 0.6), families=(("open", 0.7),))
    save_exit_preset(tmp_path / "found.json", found, success_rate=0.9)
    policy, settings = plan.checkpoint.policy.config, Settings(tmp_path, exit_preset=tmp_path / "found.json")
    assert _exits(settings, policy) == (found,)
    more = _exits(replace(settings, depths=(2,)), policy)
    assert [each.label for each in more] == [found.label, "depth_2"]
    assert len(_exits(Settings(tmp_path), policy)) == 9
    assert [each.label for each in _exits(Settings(tmp_path, thresholds=(), depths=(0,)), policy)] == ["depth_0"]
    save_exit_preset(tmp_path / "found.json", ExitSetting(exit_threshold=(0.3, 0.4)))
    with pytest.raises(InputError, match="asks its gate after 4 latent steps"):
        _exits(settings, policy)


def test_the_command_line_takes_one_suite_or_several():
    words = ["--checkpoint", "somewhere", "--suite"]
    assert tyro.cli(Settings, args=[*words, "libero_goal"]).suite == ("libero_goal",)
    assert tyro.cli(Settings, args=[*words, "libero_goal", "libero_10"]).suite == ("libero_goal", "libero_10")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": "server", "num_servers": 0}, "--num-servers 0"),
        ({"placement": "server", "server_gpus": -1.0}, "--server-gpus -1.0: give at least 0"),
        ({"server_gpus": 1.0}, "add --placement server"),
        ({"num_servers": 1}, "add --placement server"),
        ({"offline": True, "num_servers": 1}, "leave out --num-servers"),
        ({"exit_preset": Path("found.json"), "thresholds": PAPER}, "give no --thresholds beside it"),
        ({"offline": True, "placement": "server"}, "leave out --placement"),
        ({"suite": ()}, "at least one"),
        ({"episodes": 0}, "--episodes 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        _check(Settings(tmp_path, **changes))
