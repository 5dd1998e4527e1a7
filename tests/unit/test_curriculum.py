"""Which tasks are played more often, and when."""

from __future__ import annotations

import json

import pytest

from actors.curriculum import KNOWN, WINDOW, Curriculum
from avavla_ray.simulators.base import EpisodeSummary


def episodes(task: int, successes: int, failures: int) -> list[EpisodeSummary]:
    return [
        EpisodeSummary("", task, None, 0, index < successes, 1, 1, 1.0) for index in range(successes + failures)
    ]  # fmt: skip


def test_an_unknown_task_weighs_as_much_as_one_between() -> None:
    curriculum = Curriculum()
    assert curriculum.weights() == {}
    curriculum.saw(episodes(3, 0, KNOWN - 1))
    assert curriculum.weights() == {}
    curriculum.saw(episodes(3, 0, 1))
    assert curriculum.weights() == {3: 0.2}


@pytest.mark.parametrize(
    ("successes", "weight"), [(0, 0.25), (1, 0.25), (2, 1.0), (10, 1.0), (18, 1.0), (19, 0.25), (20, 0.25)]
)
def test_the_bounds_belong_to_what_is_worth_playing(successes: int, weight: float) -> None:
    curriculum = Curriculum(0.1, 0.9, 0.25)
    curriculum.saw(episodes(0, successes, WINDOW - successes))
    assert curriculum.weights() == {0: weight}
    assert curriculum.rates() == {0: successes / WINDOW}


def test_only_the_last_outcomes_count() -> None:
    curriculum = Curriculum()
    curriculum.saw(episodes(0, 0, 500))
    curriculum.saw(episodes(1, 500, 0))
    assert curriculum.weights() == {0: 0.2, 1: 0.2}
    curriculum.saw(episodes(0, 2, 0))
    curriculum.saw(episodes(1, 0, WINDOW))
    assert curriculum.weights() == {0: 1.0, 1: 0.2}
    assert curriculum.rates() == {0: 0.1, 1: 0.0}


def test_it_goes_on_from_its_state() -> None:
    curriculum, other = Curriculum(), Curriculum(window=WINDOW // 2)
    curriculum.saw(episodes(0, 0, WINDOW // 2) + episodes(0, WINDOW // 2, 0) + episodes(7, 1, 0))
    again = Curriculum()
    again.restore(curriculum.state())
    assert again.state() == curriculum.state()
    assert again.weights() == curriculum.weights() == {0: 1.0}
    other.restore(curriculum.state())
    assert other.rates() == {0: 1.0}
    assert json.loads(json.dumps(curriculum.state()))
