"""What `jobs/evaluate.py` is asked for: suites, exit settings, and what it refuses before anything starts."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from actors.evaluation_run import EpisodeEvaluation, EvaluationPlan
from actors.evaluation_suites import evaluations
from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, save_exit_preset
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config import PAPER_THRESHOLDS
from jobs.evaluate import Settings, _check, _exits
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
    with evaluations(plan, ("tabletop", "tabletop_memory"), tmp_path) as (one, other):
        assert [each.output for each in (one, other)] == [tmp_path / "tabletop", tmp_path / "tabletop_memory"]
    with evaluations(plan, ("tabletop",), tmp_path / "alone") as (alone,):
        assert isinstance(alone, EpisodeEvaluation)
        assert alone.output == tmp_path / "alone"


def test_a_suite_with_fewer_initial_states_than_libero_is_played_from_all_of_them(plan, tmp_path):
    whole = replace(plan, episodes=None, tasks=(0,))
    for suite, states in (("tabletop", 50), ("tests.support.point_simulator:PointSimulator", 5)):
        with evaluations(whole, (suite,), tmp_path / str(states)) as (evaluation,):
            assert [each.initial_state for each in evaluation._todo()] == list(range(states))


def test_two_do_not_go_on_in_one_folder(plan, tmp_path, monkeypatch):
    """The second, resumed or not, is refused before it has touched the ledger, until the first has ended."""
    monkeypatch.setattr("actors.evaluation_suites.DYING_S", 0.1)
    resumed = replace(plan, resume=True)
    with evaluations(resumed, ("tabletop",), tmp_path) as (first,):
        with (
            pytest.raises(InputError, match=f"is being written by process {os.getpid()}"),
            evaluations(resumed, ("tabletop",), tmp_path),
        ):
            pass
        first._ledger.add(EpisodeRecord("depth_1", 0, 0, success=True, steps=9))
    with evaluations(resumed, ("tabletop",), tmp_path) as (second,):
        assert ("depth_1", 0, 0) in second._ledger


@pytest.mark.parametrize(
    ("changes", "suites", "message"),
    [
        ({}, ("tabletop", "tabletop"), "give each once"),
        ({"tasks": (0,)}, ("tabletop", "tabletop_memory"), "--tasks are of one suite"),
        ({"episodes": 51}, ("tabletop",), "1 to 50 a task"),
        ({"label": "a/b"}, ("tabletop",), "without a slash"),
        ({"label": 200 * "a"}, ("tabletop",), "give a short one"),
        ({}, ("tabeltop",), "did you mean 'tabletop'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_at_once(plan, tmp_path, changes, suites, message):
    with pytest.raises(InputError, match=message), evaluations(replace(plan, **changes), suites, tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_cpu_has_begun_no_gpu_goes_on_with(plan, tmp_path):
    with evaluations(plan, ("tabletop",), tmp_path) as (evaluation,):
        evaluation._ledger.add(evaluation._todo()[0].lost("for the ledger", 1, quarantined=False))
    with evaluations(replace(plan, resume=True, servers=2), ("tabletop",), tmp_path):
        pass  # servers on the CPU decide alike
    with (
        pytest.raises(InputError, match="another evaluation"),
        evaluations(replace(plan, resume=True, servers=2, server_gpus=0.5), ("tabletop",), tmp_path),
    ):
        pass


def test_what_is_finished_is_not_played_again_and_its_video_only_if_it_is_gone(plan, tmp_path):
    with evaluations(replace(plan, tasks=(0, 3)), ("tabletop",), tmp_path) as (evaluation,):
        assert [(each.task, each.initial_state, each.film) for each in evaluation._todo()] == [
            (0, 0, True), (0, 1, False), (3, 0, True), (3, 1, False),
        ]  # fmt: skip
        for task in (0, 3):  # an earlier evaluation's: of none of these episodes
            evaluation._videos[task].parent.mkdir(parents=True, exist_ok=True)
            evaluation._videos[task].touch()
        assert [each.film for each in evaluation._todo()] == [True, False, True, False]
        for state in (0, 1):
            evaluation._ledger.add(EpisodeRecord("depth_1", 0, state, success=False, steps=9))
        evaluation._ledger.add(EpisodeRecord("depth_1", 3, 0, success=False, steps=0, error="its simulator died"))
        assert [(each.task, each.initial_state) for each in evaluation._todo()] == [(3, 0), (3, 1)]
        _, written = evaluation._write({"suite": "tabletop"})
        assert [video.name for video in written[0].videos] == ["BC_task0_depth_1.mp4"]
        evaluation._videos[0].unlink()
        assert [(each.task, each.initial_state) for each in evaluation._todo()] == [(0, 0), (3, 0), (3, 1)]


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
        ({"exit_preset": Path("found.json"), "thresholds": PAPER_THRESHOLDS}, "give no --thresholds beside it"),
        ({"offline": True, "placement": "server"}, "leave out --placement"),
        ({"suite": ()}, "at least one"),
        ({"episodes": 0}, "--episodes 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        _check(Settings(tmp_path, **changes))
