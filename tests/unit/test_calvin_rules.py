"""The 34 tasks, what they need and what they change; and the conditions that training starts are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from avavla_ray.simulators.calvin.adapter import CalvinSimulator
from avavla_ray.simulators.calvin.initial_states import published_conditions
from avavla_ray.simulators.calvin.rules import BLOCKS, COMPARTMENTS, RULES, outcomes
from avavla_ray.simulators.calvin.starts import FIXED_STARTS, draw_condition, possible_conditions
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS, TASKS
from avavla_ray.simulators.registry import CALVIN_SUITES, suite_spec


def test_every_task_has_a_sentence_and_a_rule() -> None:
    assert len(TASKS) == 34 == len(set(INSTRUCTIONS.values()))
    assert set(RULES) == set(TASKS)


def test_suites_need_no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALVIN_ENV_ROOT", raising=False)
    for suite in CALVIN_SUITES:
        spec = suite_spec(suite)
        assert (len(spec.instructions), spec.max_steps, spec.proprio_dim, spec.num_cameras) == (34, 360, 8, 2)
    assert CalvinSimulator.suite_spec("calvin_d").instructions[TASKS.index("open_drawer")].startswith("pull the handle")


def test_a_task_changes_its_condition_so_that_it_cannot_be_repeated() -> None:
    for task in ("turn_on_led", "turn_off_lightbulb", "open_drawer", "close_drawer", "move_slider_left"):
        (before, *_) = possible_conditions(task)
        (after,) = outcomes(task, before)
        assert not outcomes(task, after)
        assert outcomes(task, before)  # the condition before is left as it was


def test_a_block_goes_from_the_table_into_the_hand_and_into_the_drawer() -> None:
    before = next(c for c in possible_conditions("lift_red_block_table") if c["drawer"] == "open")
    (held,) = outcomes("lift_red_block_table", before)
    assert (held["red_block"], held["grasped"]) == ("grasped", 1)
    assert not outcomes("lift_blue_block_table", held)
    (stored,) = outcomes("place_in_drawer", held)
    assert (stored["red_block"], stored["grasped"]) == ("drawer", 0)
    assert outcomes("lift_red_block_drawer", stored)


def test_seven_tasks_begin_in_no_published_condition() -> None:
    begins = {task: len(possible_conditions(task)) for task in TASKS}
    never = {task for task, count in begins.items() if not count}
    assert never == {
        "lift_red_block_drawer", "lift_blue_block_drawer", "lift_pink_block_drawer", "place_in_slider",
        "place_in_drawer", "stack_block", "unstack_block",
    }  # fmt: skip
    assert min(begins[task] for task in TASKS if task not in never) == FIXED_STARTS


@pytest.mark.parametrize("task", TASKS)
def test_drawn_conditions_allow_their_task(task: str) -> None:
    random = np.random.default_rng(0)
    drawn = [draw_condition(task, random) for _ in range(40)]
    for condition in drawn:
        assert outcomes(task, condition)
        places = [condition[block] for block in BLOCKS]
        assert all(places.count(side) <= 1 for side in COMPARTMENTS)
        assert condition["grasped"] == places.count("grasped")
    assert len({tuple(condition.items()) for condition in drawn}) > 10


def test_published_conditions_are_not_changed_by_their_users() -> None:
    before = [dict(condition) for condition in published_conditions()]
    for task in TASKS:
        for condition in published_conditions():
            outcomes(task, condition)
    assert [dict(condition) for condition in published_conditions()] == before
