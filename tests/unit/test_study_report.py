"""Learning curves of several runs: joined, timed, tabled and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.ppo_study import BASE, Way
from avavla_ray.evaluation.results import summarise
from avavla_ray.evaluation.study_curves import (
    Curve,
    Point,
    curve_of,
    mean_curve,
    mean_lag,
    reached,
    read_points,
    start_success,
)
from avavla_ray.evaluation.study_files import publish_study, write_study
from avavla_ray.evaluation.study_report import HEAD, START, Run, rows, table, target


def point(update: int, success: float | None, episodes: int = 0, lag: float = 0.0, decisions: float = 10.0) -> Point:
    """Of a run that makes 1000 steps and half a minute an update."""
    known = {} if success is None else {"rollout/success_rate": success}
    return {
        **known, "total/updates": float(update), "total/env_steps": 1000.0 * update, "total/seconds": 30.0 * update,
        "total/episodes": float(episodes or 50 * update), "total/decisions": 100.0 * update,
        "total/decisions_dropped": 5.0 * update, "learner/lag": lag, "learner/decisions": decisions,
        "learner/kl": 0.01 * update,
    }  # fmt: skip


def result(won: set[int], states: int = 20) -> dict[str, Any]:
    setting = ExitSetting(fixed_depth=5)
    records = [EpisodeRecord(setting.label, 0, state, state in won, 16, [5], [10.0]) for state in range(states)]
    return summarise(setting, records, {0: "reach"}, suite="tabletop")


def test_a_line_that_a_killed_run_has_begun_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "curve.jsonl").write_text(json.dumps(point(1, 0.5)) + "\n" + json.dumps(point(2, 0.6))[:20])
    assert read_points(tmp_path / "curve.jsonl") == [point(1, 0.5)]


def test_a_curve_begins_where_it_says_something() -> None:
    points = [point(1, None, 0), point(2, 1.0, 2), point(3, 0.4, 20), point(4, 0.5, 60)]
    curve = curve_of(points)
    assert curve.success.tolist() == [0.4, 0.5]
    assert curve.env_steps.tolist() == [3000, 4000]
    assert curve.minutes.tolist() == [1.5, 2.0]
    assert curve_of(points[:2]).success.tolist() == [1.0], "a run of few episodes is seen at all"
    assert curve_of(points[:1]).success.size == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 300)), max_size=8), st.floats(0, 1))
def test_a_level_is_reached_by_whole_windows_only(seen: list[tuple[float, int]], level: float) -> None:
    points = [point(update, success, episodes + 1) for update, (success, episodes) in enumerate(seen, start=1)]
    there = [update for update, (success, episodes) in enumerate(seen, 1) if episodes >= 99 and success >= level]
    assert reached(points, level) == ((1000.0 * there[0], 0.5 * there[0]) if there else None)


def line(begin: float, end: float, low: float, high: float, points: int) -> Curve:
    x = np.linspace(begin, end, points)
    return Curve(x, x / 60, low + (high - low) * (x - begin) / max(end - begin, 1e-9))


def test_the_mean_of_seeds_is_over_what_all_of_them_have() -> None:
    curves = [line(0, 100, 0.0, 1.0, 5), line(20, 80, 0.5, 0.5, 7)]
    x, y = mean_curve(curves, "env_steps")
    assert (x[0], x[-1]) == (20, 80)
    np.testing.assert_allclose(y, (x / 100 + 0.5) / 2, atol=1e-12)
    minutes, same = mean_curve(curves, "minutes")
    np.testing.assert_allclose(minutes * 60, x)
    np.testing.assert_allclose(same, y)
    empty = Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    assert mean_curve([*curves, empty], "env_steps")[0].tolist() == x.tolist()
    for nothing in ([], [empty], [line(0, 1, 0, 1, 2), line(2, 3, 0, 1, 2)]):
        assert mean_curve(nothing, "minutes")[1].size == 0


def test_all_runs_together_say_how_they_began() -> None:
    first = [point(1, 0.5, 10), point(2, 1.0, 100)]
    assert start_success([first, [point(1, None, 0), point(2, 0.0, 30)], []]) == pytest.approx(0.125)
    assert start_success([[point(1, 1.0, 300)], [point(1, 0.0, 100)]]) == 0.5, "no window is longer than another"
    assert start_success([[]]) is None


def test_lag_is_of_the_second_half_and_of_decisions() -> None:
    points = [point(1, 0.1), point(2, 0.1), point(3, 0.1, lag=4.0, decisions=30), point(4, 0.1, lag=8.0, decisions=10)]
    assert mean_lag(points) == 5.0
    assert mean_lag([]) is None


@pytest.fixture
def runs() -> dict[str, list[Run]]:
    slow, fast = [[point(update, rate) for update, rate in enumerate(rates, start=1)]
                  for rates in ((0.2, 0.3, 0.6, 0.6), (0.2, 0.7, 0.8, 0.9))]  # fmt: skip
    return {
        BASE: [Run(0, slow, result({0, 1, 2, 3})), Run(1, fast, result({0, 1}))],
        "synchronous": [Run(0, fast, result(set(range(14))))],
        "actions": [],
    }


def test_the_rows_pool_seeds_and_compare_what_both_have_played(runs: dict[str, list[Run]]) -> None:
    assert target(runs) == pytest.approx(0.6)
    start, base, other = rows(runs, result({0}))
    assert (start["variant"], start["successes"], start["episodes"]) == (START, 1, 20)
    assert (base["variant"], base["successes"], base["episodes"], base["success_rate"]) == (BASE, 6, 40, 0.15)
    assert base["training_success"] == pytest.approx(0.75)
    assert [run["env_steps_to_level"] for run in base["runs"]] == [3000, 2000]
    assert [run["minutes_to_level"] for run in base["runs"]] == [1.5, 1.0]
    assert base["dropped_share"] == pytest.approx(0.05)
    assert base["kl"] == pytest.approx(0.025)
    assert base["env_steps_per_s"] == pytest.approx(1000 / 30)
    assert "difference" not in base
    assert other["difference"] == pytest.approx(0.5), "14 of 20 against the base's 4 of 20 with the same seed"
    assert other["difference_ci95"][0] > 0
    text = table([start, base, other])
    assert text.splitlines()[0].count("|") == len(HEAD) + 1
    assert "2,500 (2 of 2)" in text
    assert "+50.0 (" in text


def test_a_level_that_nobody_reaches_is_said_to_be_so(runs: dict[str, list[Run]]) -> None:
    low = {BASE: [Run(0, [point(1, 0.0), point(2, 0.1)], result(set()))]}
    _, row = rows(low, result(set()))
    assert row["runs"][0]["env_steps_to_level"] is None
    assert "- (0 of 1)" in table([row])


def test_a_study_is_written_of_what_there_is(tmp_path: Path, runs: dict[str, list[Run]]) -> None:
    files = write_study(tmp_path, "tabletop", ("asynchrony", "staleness"), Way(), runs, result({0}))
    assert [file.name for file in files] == ["study.md", "study.json", "asynchrony.png", "staleness.png"]
    kept = json.loads(files[1].read_text())
    assert kept["level"] == pytest.approx(0.6)
    assert [row["variant"] for row in kept["rows"]] == [START, BASE, "synchronous"]
    assert kept["variants"]["synchronous"]["max_lag"] == 0
    text = files[0].read_text()
    assert "Level: 60%" in text
    assert "](asynchrony.png)" in text
    both, alone = (imageio.imread(file) for file in files[2:])
    assert np.ptp(both) > 0
    assert (both != alone).any()
    assert len({tuple(colour) for colour in both.reshape(-1, both.shape[-1])[:, :3]}) > 50


def test_a_study_of_runs_without_episodes_is_written_too(tmp_path: Path) -> None:
    nothing = {BASE: [Run(0, [point(1, None, 0)], result(set()))]}
    files = write_study(tmp_path, "tabletop", ("cloning",), Way(), nothing, result(set()))
    assert json.loads(files[1].read_text())["level"] is None
    assert "Level:" not in files[0].read_text()


def test_a_published_study_has_its_curves_and_names_no_folder(tmp_path: Path, runs: dict[str, list[Run]]) -> None:
    folder = tmp_path / "study"
    told = {"settings": {"demos": str(folder / "demos")}}
    files = write_study(folder, "tabletop", ("asynchrony",), Way(), runs, result({0}), told)
    (folder / "recipe.json").write_text("{}")
    for name in ("base-0", "demos"):
        (folder / name).mkdir()
    (folder / "base-0/curve.jsonl").write_text("{}\n")
    (folder / "base-0/summary.json").write_text(json.dumps({"checkpoint": str(folder / "base-0/checkpoint")}))
    for _ in range(2):
        publish_study(folder, files, tmp_path / "results/study")
    published = sorted(
        str(path.relative_to(tmp_path / "results/study")) for path in (tmp_path / "results").rglob("*.*")
    )
    assert published == [
        "asynchrony.png", "base-0/curve.jsonl", "base-0/summary.json", "recipe.json", "study.json", "study.md",
    ]  # fmt: skip
    assert json.loads((tmp_path / "results/study/study.json").read_text())["settings"] == {"demos": "demos"}
    assert str(tmp_path) not in (tmp_path / "results/study/base-0/summary.json").read_text()
