"""The order in which an expert takes up a task's goals."""

from __future__ import annotations

import itertools

import pytest

from avavla_ray.simulators.experts.goals import ordered

OPEN, CLOSE = ["open", "cabinet_1_top_region"], ["close", "cabinet_1_top_region"]
FILL, KNOB = ["in", "bowl_1", "cabinet_1_top_region"], ["turnon", "stove_1"]
POT = ["on", "pot_1", "stove_1_cook_region"]


@pytest.mark.parametrize("expected", [
    [OPEN, FILL],
    [FILL, CLOSE],
    [KNOB, POT],
    [["in", "mug_1", "microwave_1_heating_region"], ["close", "microwave_1"]],
    [CLOSE, ["open", "cabinet_1_bottom_region"]],
    [["in", "bowl_2", "tray_1_contain_region"], ["on", "bowl_1", "bowl_2"]],
])  # fmt: skip
def test_what_bars_or_undoes_another_goal_comes_in_its_place(expected: list[list[str]]) -> None:
    for given in itertools.permutations(expected):
        assert ordered(list(given)) == expected


def test_a_drawer_that_stays_empty_is_closed_before_things_are_put_on_the_cabinet() -> None:
    other = ["close", "cabinet_1_bottom_region"]
    assert ordered([FILL, other]) == [other, FILL]


def test_independent_goals_keep_the_order_of_the_task() -> None:
    goals = [["in", "soup_1", "basket_1_contain_region"], ["in", "sauce_1", "basket_1_contain_region"]]
    assert ordered(goals) == goals
    assert ordered(goals[::-1]) == goals[::-1]
