"""Budgets of a run, and what it reports."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from actors.async_ppo_config import AsyncPPOConfig
from actors.batch import deal
from actors.metrics import EPISODE_WINDOW, TASK_WINDOW, RolloutWindow, flat, log_rollout, log_update
from actors.ppo_job import Settings, check_thresholds, choose, configure
from actors.ppo_run import CURVE, Budget, _restore, _run
from actors.report import Report
from actors.stopping import Stopped, Stopping
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting, save_exit_preset
from avavla_ray.evaluation.lag_plot import plot_lag
from avavla_ray.evaluation.learning_curve import plot_learning_curve
from avavla_ray.evaluation.timing_tree import REST, describe, kinds, plot_timings, shares
from avavla_ray.simulators.base import EpisodeSummary, SimulatorConfig


class SlowToStart:
    """What `_run` asks of an algorithm: runners take 40 seconds to start, an update takes 2."""

    config = AsyncPPOConfig()
    metrics = MetricsLogger()
    iteration = 0
    started = False
    now = 0.0

    def start_runners(self) -> None:
        self.now += 40.0
        self.started = True

    def monotonic(self) -> float:
        return self.now

    def train(self) -> dict:
        assert self.started
        self.iteration += 1
        self.now += 2.0
        return {"learners": {"policy": {"kl": 0.0}}, "env_runners": {"num_env_steps_sampled_lifetime": 10}}

    def save_to_path(self, path: str) -> None:
        Path(path).mkdir()


def test_the_start_of_runners_is_no_part_of_a_runs_time_nor_is_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[dict[str, float]] = []
    first = SlowToStart()
    monkeypatch.setattr("actors.ppo_run.time", first)
    _run(first, Budget(updates=1), tmp_path, points, 5.0, lambda _: None)  # type: ignore[arg-type]
    assert [point["total/seconds"] for point in points] == [2.0]
    points[-1]["total/seconds"] = 100.0
    resumed = SlowToStart()
    resumed.iteration, resumed.now = 1, 1e6
    monkeypatch.setattr("actors.ppo_run.time", resumed)
    _run(resumed, Budget(updates=2), tmp_path, points, 5.0, lambda _: None)  # type: ignore[arg-type]
    assert [point["total/seconds"] for point in points] == [100.0, 102.0]


def test_the_first_limit_that_is_reached_ends_the_run() -> None:
    budget = Budget(env_steps=1000, minutes=2.0, updates=10)
    assert not budget.spent({})
    assert not budget.spent({"total/env_steps": 999, "total/seconds": 119.9, "total/updates": 9})
    for name, value in {"total/env_steps": 1000, "total/seconds": 120.0, "total/updates": 10}.items():
        assert budget.spent({name: value})


@pytest.mark.parametrize(
    ("limits", "message"), [({}, "no end"), ({"updates": 0}, "updates 0"), ({"minutes": -1.0}, "minutes -1.0")]
)
def test_a_budget_without_sense_is_refused(limits: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(**limits)


def report(successes: list[bool], decisions: int = 10, latent_steps: int = 30, task: int = 0) -> Report:
    finished = [EpisodeSummary(str(n), task, None, 0, success, 50, 7, 3.0) for n, success in enumerate(successes)]
    return Report(
        0, decisions=decisions, env_steps=80, latent_steps=latent_steps, finished=finished,
        returns=[float(success) for success in successes], seconds=2.0, policy_seconds=0.5, simulator_seconds=1.0,
    )  # fmt: skip


def test_the_window_keeps_the_last_episodes_over_iterations() -> None:
    window = RolloutWindow()
    assert window.means() == {}
    window.add(report([]))
    assert window.means() == {"mean_latent_steps": 3.0, "policy_share": 0.25, "simulator_share": 0.5}
    window.add(report([False] * EPISODE_WINDOW))
    window.add(report([True] * (EPISODE_WINDOW // 4)))
    assert window.means()["success_rate"] == 0.25
    other = RolloutWindow()
    other.restore(window.state())
    assert other.means() == window.means()


def test_a_report_without_decisions_counts_its_failures_only() -> None:
    window = RolloutWindow()
    window.add(report([], decisions=0, latent_steps=0))
    assert window.means() == {}


def test_success_is_told_by_task_over_the_last_episodes_of_each() -> None:
    window = RolloutWindow()
    window.add(report([False] * TASK_WINDOW))
    window.add(report([True] * (TASK_WINDOW // 4)))
    window.add(report([True, False], task=7))
    assert window.means()["task_success/0"] == 0.25
    assert window.means()["task_success/7"] == 0.5
    other = RolloutWindow()
    other.restore(json.loads(json.dumps(window.state()), object_hook=numbered))
    assert other.means() == window.means()


def numbered(found: dict) -> dict:
    """JSON's keys are text."""
    return {int(key) if key.isdigit() else key: value for key, value in found.items()}


def test_lags_are_shares_and_a_lag_that_an_update_did_not_have_is_none_of_it() -> None:
    named = flat({"learners": {"lag": {"0": 48, "1": 16, "2": math.nan}, "decisions_used": 640, "queue_decisions": 24}})
    assert {name: share for name, share in named.items() if name.startswith("lag/")} == {
        "lag/0": 0.75, "lag/1": 0.25, "lag/2": 0.0,
    }  # fmt: skip
    assert named["rollout/queue_decisions"] == 24
    assert not [name for name in flat({"learners": {"lag": {"0": math.nan}}}) if name.startswith("lag/")]


def test_what_was_dropped_and_runners_let_go_are_told() -> None:
    named = flat({"learners": {"decisions_dropped": 24}, "env_runners": {"runners_released": 2}})
    assert (named["total/decisions_dropped"], named["total/runners_released"]) == (24, 2)
    assert named["total/runners_asked_for"] == 0


def test_what_processes_spent_and_how_long_they_had_nothing_to_do_is_added_up() -> None:
    logger = MetricsLogger(root=True)
    rollout, spent = RolloutWindow(), {"runner": 2.0, "runner/policy": 0.5, "simulator/physics": 3.0}
    for _ in range(2):
        log_rollout(logger, replace(report([]), timings=spent, idle_seconds=0.25))
    log_rollout(logger, report([]))
    update = {"env_steps": 8, "update_seconds": 1.5, "profile/learner": 4.0, "profile/learner/backward": 1.0}
    log_update(logger, update, rollout)
    named = flat(logger.reduce())
    assert {name: seconds for name, seconds in named.items() if name.startswith("profile/")} == {
        "profile/runner": 4.0, "profile/runner/policy": 1.0, "profile/runner/idle": 0.5,
        "profile/simulator/physics": 6.0, "profile/learner": 4.0, "profile/learner/backward": 1.0,
        "profile/learner/idle": 2.5,
    }  # fmt: skip
    assert named["total/decisions"] == 30
    assert not [name for name in named if name.startswith("learner/profile")]


def test_trees_are_told_with_shares_of_wall_time_and_drawn(tmp_path: Path) -> None:
    timings = {
        "simulator": 8.0, "simulator/physics": 4.0, "simulator/rendering": 3.0, "simulator/idle": 0.8,
        "runner": 4.0, "runner/policy": 1.0, "runner/policy/think": 0.75, "runner/idle": 2.5, "driver": 4.0,
    }  # fmt: skip
    assert kinds(timings) == ["simulator", "runner", "driver"]
    assert shares(timings, "runner") == {"idle": 0.625, "policy/think": 0.1875, REST: 0.125, "policy": 0.0625}
    told = describe(timings).splitlines()
    assert told[:5] == [
        "simulator                                  100.0 %         8.0 s",
        "  physics                                   50.0 %         4.0 s",
        "  rendering                                 37.5 %         3.0 s",
        "  idle                                      10.0 %         0.8 s",
        "  rest                                       2.5 %         0.2 s",
    ]
    plot_timings(tmp_path / "profile.png", timings, "a title")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_lag_is_drawn_from_incomplete_points(tmp_path: Path) -> None:
    points = [
        {"total/updates": 1.0, "total/decisions_used": 64.0, "lag/0": 1.0},
        {"total/updates": 2.0},
        {"total/updates": 3.0, "total/decisions_used": 256.0, "lag/0": 0.5, "lag/2": 0.5},
    ]
    for number, given in enumerate((points, [])):
        plot_lag(tmp_path / f"{number}.png", given, "a title")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_a_checkpoint_begins_its_curve_anew(tmp_path: Path) -> None:
    (tmp_path / CURVE).write_text('{"total/updates": 1.0}\n')
    assert _restore(None, tmp_path) == []  # type: ignore[arg-type]
    assert not (tmp_path / CURVE).exists()


def test_sigterm_is_noted_inside_the_block_and_raised_where_it_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stopping() as stopping:
        stopping.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            stopping.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_names_for_mlflow_leave_out_what_an_iteration_did_not_have() -> None:
    result = {
        "env_runners": {"success_rate": 0.5, "mean_latent_steps": math.nan, "num_env_steps_sampled_lifetime": 640},
        "learners": {"policy": {"kl": 0.01, "gate_loss": math.nan}, "fragments_dropped": 2},
    }
    named = flat(result)
    assert named["rollout/success_rate"] == 0.5
    assert named["learner/kl"] == 0.01
    assert named["total/env_steps"] == 640
    assert named["total/fragments_dropped"] == 2
    assert named["total/runner_restarts"] == 0
    assert not {"rollout/mean_latent_steps", "learner/gate_loss"} & set(named)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_lots_are_dealt_evenly_and_to_everybody(world: int) -> None:
    lots = [(name, size) for name, size in zip("abcdef", (32, 32, 64, 16, 32, 48), strict=True)]
    shares = deal(lots, world)
    assert sorted(item for share in shares for item in share) == list("abcdef")
    sizes = [sum(dict(lots)[item] for item in share) for share in shares]
    assert min(sizes) > 0
    assert max(sizes) - min(sizes) <= 32


def test_the_learning_curve_is_drawn_from_incomplete_points(tmp_path: Path) -> None:
    points = [
        {"total/env_steps": 100.0, "learner/kl": 0.01, "learner/lag": 0.0},
        {"total/env_steps": 200.0, "learner/kl": 0.02, "rollout/success_rate": 0.3, "rollout/mean_latent_steps": 4.0},
        {"total/env_steps": 300.0, "learner/kl": 1500.0, "rollout/task_success/0": 0.5, "rollout/task_success/1": 1.0},
    ]
    path = tmp_path / "curve.png"
    plot_learning_curve(path, points, "a title")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (ExitSetting(fixed_depth=2), "is a fixed depth: PPO's rollouts leave by thresholds"),
        (ExitSetting(0.5, families=(("open", 0.6),)), "thresholds of task families"),
        (ExitSetting((0.5,)), "asks its gate after 4 latent steps"),
    ],
)
def test_rollouts_leave_by_an_exit_preset_that_fits(tmp_path: Path, setting: ExitSetting, complaint: str) -> None:
    path = tmp_path / "exit.json"
    save_exit_preset(path, ExitSetting((0.3, 0.4, 0.5, 0.6)))
    job = Settings(preset="tiny", exit_preset=path)
    check_thresholds(job)
    config = configure(job, choose(job), SimulatorConfig(suite="tabletop"))
    assert config.exit_threshold == (0.3, 0.4, 0.5, 0.6)
    config.training(exit_threshold=(0.3, 1.4))
    with pytest.raises(InputError, match=r"1.4 is outside \[0, 1\]"):
        config.validate()
    save_exit_preset(path, setting)
    with pytest.raises(InputError, match=complaint):
        check_thresholds(job)
