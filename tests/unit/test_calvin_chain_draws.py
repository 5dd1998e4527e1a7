"""Chains to learn from, as the evaluation's rules make them."""

from __future__ import annotations

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.rules import outcomes
from avavla_ray.simulators.calvin.sequences import KINDS
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.calvin.training_chains import draw_before, draw_chain
from avavla_ray.simulators.registry import CALVIN_CHAIN_SUITES, suite_spec


@pytest.mark.parametrize("length", range(1, 6))
def test_every_task_of_a_chain_is_possible_where_the_ones_before_it_left_the_scene(length: int) -> None:
    random = np.random.default_rng(length)
    firsts = set()
    for _ in range(200):
        condition, chain = draw_chain(length, random)
        assert len(chain) == length
        for task in chain:
            made = outcomes(task, condition)
            assert len(made) == 1
            condition = made[0]
        kinds = [KINDS[TASKS.index(task)] for task in chain]
        assert len(set(kinds)) == length
        firsts.add(chain[0])
    assert len(firsts) > 30  # of 34: none is left out


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_follow_another(task: str) -> None:
    random = np.random.default_rng(TASKS.index(task))
    befores = set()
    for _ in range(40):
        condition, before = draw_before(task, random)
        made = outcomes(before, condition)
        assert len(made) == 1
        assert len(outcomes(task, made[0])) == 1
        assert KINDS[TASKS.index(before)] != KINDS[TASKS.index(task)]
        befores.add(before)
    assert len(befores) >= (1 if task == "unstack_block" else 2)


def test_a_seed_is_a_chain() -> None:
    one, same, other = (draw_chain(5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_suites_have_a_task_for_each_length_and_no_published_start() -> None:
    for suite in CALVIN_CHAIN_SUITES:
        spec = suite_spec(suite)
        assert (len(spec.instructions), spec.num_initial_states, spec.max_steps) == (5, 0, 1800)
        assert spec.deviation
    with pytest.raises(InputError):
        suite_spec("calvin_e_chains")
