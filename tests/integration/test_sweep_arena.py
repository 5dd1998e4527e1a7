"""The arena of a sweep: one judgement however many simulators play, and nothing is played twice."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.evaluation_pool import EvaluationPool
from actors.sweep_arena import COMPLETE, UNFINISHED, Arena, Rules
from actors.sweep_search import Trials, search
from avavla_ray.errors import InputError
from avavla_ray.evaluation.budget import STEPS, Budget, episode_order
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.storage.freeze import scan
from tests.support.failing_simulators import always_breaks
from tests.support.full_arena import FullArena
from tests.support.point_simulator import make_point_simulator, point_statistics
from tests.support.policies import stirred_policy, tiny
from tune_spaces.exit_thresholds import ExitSpace

PLANNED = tuple(episode_order((0, 1), range(5), seed=0))
DEAR, CHEAP = ExitSetting(fixed_depth=5), ExitSetting(fixed_depth=1)


def rules(limit: float | None = 2.0) -> Rules:
    return Rules(PLANNED, STEPS, None if limit is None else Budget(STEPS, limit), depth=5, longest=3, error_rate=0.05)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(stirred_policy(tiny(latent__max_steps=5), seed=3), point_statistics())


def arena(agent: Agent, output: Path, actors: int, *, budget: int | None = None, resume: bool = False,
          factory: Any = make_point_simulator) -> Arena:  # fmt: skip
    config = SimulatorConfig(suite="point", image_size=32)
    made = functools.partial(EvaluationPool, agent, config, actors, factory=factory, isolate=False)
    found = Arena(made, actors)
    found.open(output, {"suite": "point"}, resume, budget, PLANNED)
    return found


def test_who_plays_does_not_change_where_a_setting_ends(ray_cluster: object, agent: Agent, tmp_path: Path) -> None:
    ends = []
    for actors in (1, 2):
        here = arena(agent, tmp_path / str(actors), actors)
        ends.append(here.compete(DEAR, rules()))
        here.close()
    assert ends[0] == ends[1]
    assert ends[0].verdict == "over budget"
    assert ends[0].episodes < len(PLANNED)
    assert ends[0].cost == 5


def test_what_was_played_is_free_and_the_budget_of_episodes_is_kept(
    ray_cluster: object, agent: Agent, tmp_path: Path
) -> None:
    here = arena(agent, tmp_path, 1, budget=13)
    first = here.compete(CHEAP, rules())
    assert (first.verdict, first.episodes, first.cost) == (COMPLETE, 10, 1.0)
    assert here.left() == 3
    assert here.compete(CHEAP, rules()) == first
    assert here.left() == 3
    other = here.compete(ExitSetting(exit_threshold=0.0), rules())
    assert (other.verdict, other.episodes) == (UNFINISHED, 3)
    assert here.left() == 0
    assert not here.play([DEAR], PLANNED, "more")
    assert here.play([DEAR], [(0, 4)], "confirming", free=True)
    here.close()
    here._lock.__exit__(None, None, None)

    with pytest.raises(InputError, match="--resume"):
        arena(agent, tmp_path, 1)
    more = arena(agent, tmp_path / "elsewhere", 1)
    assert more.left() is None


def test_the_rival_is_the_best_within_the_budget_or_the_front(
    ray_cluster: object, agent: Agent, tmp_path: Path
) -> None:
    here = arena(agent, tmp_path, 1)
    here.play([CHEAP, DEAR, ExitSetting(fixed_depth=3)], PLANNED, "listed")
    points = here._points(rules(), other_than="")
    assert sorted(point.cost for point in points) == [1, 3, 5]
    (rival,) = rules(3.0).best(points)
    assert rival.success_rate == max(point.success_rate for point in points if point.cost <= 3)
    front = rules(None).best(points)
    assert front[0].cost == 1
    assert [point.success_rate for point in front] == sorted({point.success_rate for point in front})
    assert not rules(0.5).best(points)
    here.close()


def test_episodes_that_all_break_end_a_setting_without_a_rate(
    ray_cluster: object, agent: Agent, tmp_path: Path
) -> None:
    here = arena(agent, tmp_path, 1, factory=always_breaks)
    standing = here.compete(CHEAP, rules())
    assert (standing.verdict, standing.episodes, standing.success, standing.cost) == (COMPLETE, 0, None, None)
    here.close()


def test_what_the_arena_refuses_ends_a_search_with_its_own_words(ray_cluster: object, tmp_path: Path) -> None:
    space = ExitSpace.of("global", 5, ["reach"])
    trials = Trials(tmp_path / "trials.jsonl", {"suite": "point"}, resume=False)
    with pytest.raises(InputError, match="^no space left in runs/sweep$"):
        search(
            space, "tpe", seed=0, rules=rules(), arena=ray.remote(num_cpus=0)(FullArena).remote(), trials=trials,
            count=3, first=[], folder=tmp_path,
        )  # fmt: skip
    assert not [name for name in scan(tmp_path) if name.startswith("tune/")], "Tune's own folder is not published"


def test_fixed_depths_are_no_rivals_where_only_gates_are_recommended(
    ray_cluster: object, agent: Agent, tmp_path: Path
) -> None:
    here = arena(agent, tmp_path, 1)
    here.play([CHEAP], PLANNED, "listed")
    assert [point.cost for point in here._points(rules(), other_than="")] == [1]
    assert here._points(replace(rules(), no_rivals=frozenset({CHEAP.label})), other_than="") == []
    here.close()
