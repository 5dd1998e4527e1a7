"""Budgets of thinking: what a setting costs, and that judging it early is wrong no more often than stated."""

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.budget import (
    MILLISECONDS,
    STEPS,
    Budget,
    CostTest,
    Judge,
    Rival,
    episode_order,
    mean_cost,
)
from avavla_ray.evaluation.episode import EpisodeRecord

RUNS = 1000


def record(task, state, success, steps, ms=None, error=None):
    return EpisodeRecord("x", task, state, success, 8 * len(steps), steps, ms or [10.0] * len(steps), error)


def population(mean_steps, decisions, seed=0, success=0.8):
    """Episodes of different lengths whose decisions take `mean_steps` of at most 5 steps on average, exactly."""
    drawn = np.random.default_rng(seed)
    steps = [drawn.integers(1, 6, count) for count in decisions]
    flat = np.concatenate(steps)
    wanted = round(mean_steps * len(flat))
    while flat.sum() != wanted:
        place = drawn.integers(len(flat))
        flat[place] = np.clip(flat[place] + np.sign(wanted - flat.sum()), 1, 5)
    parts = np.split(flat, np.cumsum(decisions)[:-1])
    return [record(0, i, bool(drawn.random() < success), part.tolist()) for i, part in enumerate(parts)]


def first_exceeded(episodes, limit, drawn):
    test = CostTest(STEPS, limit, dearest=5, longest=30, population=len(episodes))
    for count, index in enumerate(drawn.permutation(len(episodes)), 1):
        if test.see(episodes[index]):
            return count
    return None


def test_costs_are_over_decisions_as_in_results():
    episodes = [record(0, 0, True, [1, 1, 1, 1], [5.0] * 4), record(0, 1, True, [5], [25.0])]
    assert mean_cost(episodes, STEPS) == pytest.approx(9 / 5)
    assert mean_cost(episodes, MILLISECONDS) == pytest.approx(9.0)
    assert mean_cost([], STEPS) is None


def test_budgets_are_checked():
    assert str(Budget(STEPS, 2.5)) == "at most 2.5 latent steps a decision"
    with pytest.raises(InputError, match="more than 0"):
        Budget(STEPS, 0.0)
    with pytest.raises(InputError, match="unknown cost"):
        Budget("joules", 1.0)


def test_a_setting_within_its_budget_is_called_dearer_no_more_often_than_stated():
    episodes = population(2.5, np.random.default_rng(1).integers(2, 31, 60))
    assert mean_cost(episodes, STEPS) == pytest.approx(2.5)
    drawn = np.random.default_rng(2)
    rate = np.mean([first_exceeded(episodes, 2.5, drawn) is not None for _ in range(RUNS)])
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


def test_a_setting_far_over_its_budget_is_noticed_early():
    episodes = population(4.2, np.full(100, 25))
    drawn = np.random.default_rng(3)
    ends = [first_exceeded(episodes, 2.5, drawn) for _ in range(50)]
    assert all(end is not None for end in ends)
    assert np.median(ends) < 20


def test_one_long_wait_does_not_make_a_setting_too_dear():
    test = CostTest(MILLISECONDS, 20.0, dearest=80.0, longest=10, population=50)
    assert not test.see(record(0, 0, True, [1] * 10, [1e6, *[10.0] * 9]))


def judged(judge, episodes):
    for count, episode in enumerate(episodes, 1):
        if judge.see(episode) is not None:
            return count
    return None


def test_under_a_budget_what_is_worse_than_the_best_is_ended_and_its_success_estimated():
    planned = episode_order([0], range(100), seed=0)
    rival = Rival({key: key[1] < 90 for key in planned}, 2.0)
    judge = Judge(planned, STEPS, dearest=5, longest=10, budget=Budget(STEPS, 2.5), rivals=[rival])
    episodes = [record(task, state, state < 40, [2] * 10) for task, state in planned]
    end = judged(judge, episodes)
    assert judge.verdict == "worse"
    assert end is not None
    assert end < 40
    assert judge.estimate(episodes[:end]) == pytest.approx(0.9 + judge._pairs[0].mean_gain)
    assert 0 <= judge.estimate(episodes[:end]) < 0.8


def test_what_is_as_good_and_within_the_budget_is_played_to_the_end():
    planned = episode_order([0, 1], range(30), seed=0)
    outcomes = {key: key[1] % 3 > 0 for key in planned}
    judge = Judge(planned, STEPS, dearest=5, longest=10, budget=Budget(STEPS, 2.5), rivals=[Rival(outcomes, 2.0)])
    episodes = [record(*key, outcomes[key], [2] * 10) for key in planned]
    assert judged(judge, episodes) is None
    assert judge.estimate(episodes) == pytest.approx(2 / 3)


def test_over_the_budget_is_its_own_verdict_whatever_the_success():
    planned = episode_order([0], range(100), seed=0)
    judge = Judge(planned, STEPS, dearest=5, longest=10, budget=Budget(STEPS, 2.0))
    episodes = [record(*key, True, [4] * 10) for key in planned]
    assert judged(judge, episodes) is not None
    assert judge.verdict == "over budget"
    assert judge.estimate(episodes[:10]) == 1.0


@pytest.mark.parametrize(("steps", "verdict"), [(4, "dominated"), (1, None)])
def test_on_the_front_what_is_worse_and_dearer_is_dominated_but_not_what_is_cheaper(steps, verdict):
    planned = episode_order([0], range(100), seed=0)
    rival = Rival(dict.fromkeys(planned, True), 2.0)
    judge = Judge(planned, STEPS, dearest=5, longest=10, rivals=[rival])
    judged(judge, [record(task, state, state < 30, [steps] * 10) for task, state in planned])
    assert judge.verdict == verdict


def test_lost_episodes_decide_nothing():
    planned = episode_order([0], range(20), seed=0)
    judge = Judge(planned, STEPS, dearest=5, longest=10, budget=Budget(STEPS, 2.0), rivals=[])
    lost = [record(*key, False, [], error="the simulator died") for key in planned]
    assert judged(judge, lost) is None
    assert judge.estimate(lost) is None


def test_the_order_is_random_whole_and_the_same_for_all():
    order = episode_order([3, 1], range(10), seed=5)
    assert sorted(order) == [(task, state) for task in (1, 3) for state in range(10)]
    assert order != sorted(order)
    assert order == episode_order([3, 1], range(10), seed=5) != episode_order([3, 1], range(10), seed=6)
