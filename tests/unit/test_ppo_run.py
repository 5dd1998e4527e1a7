"""Budgets of a run, and what it reports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from actors.batch import deal
from actors.metrics import EPISODE_WINDOW, RolloutWindow, flat
from actors.ppo_run import Budget
from actors.report import Report
from avavla_ray.errors import InputError
from avavla_ray.evaluation.learning_curve import plot_learning_curve
from avavla_ray.simulators.base import EpisodeSummary


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


def report(successes: list[bool], decisions: int = 10, latent_steps: int = 30) -> Report:
    finished = [EpisodeSummary(str(n), 0, None, 0, success, 50, 7, 3.0) for n, success in enumerate(successes)]
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
    ]
    path = tmp_path / "curve.png"
    plot_learning_curve(path, points, "a title")
    assert path.read_bytes().startswith(b"\x89PNG")
