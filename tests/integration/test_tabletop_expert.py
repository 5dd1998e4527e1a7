"""The table-top's scripted experts: they solve every task, and what they do can be recorded."""

from __future__ import annotations

import numpy as np
import pytest

from avavla_ray.demonstrations.recording import record
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.experts.expert import make_expert
from avavla_ray.simulators.registry import make_simulator
from avavla_ray.simulators.tabletop.tasks import SUITES, tasks_of

STATES = 20  # of 50; `python -m avavla_ray.simulators.experts.report --suite tabletop --episodes 50` plays them all
CASES = [(suite, index) for suite, tasks in SUITES.items() for index in range(len(tasks))]


@pytest.mark.parametrize(("suite", "task"), CASES)
def test_the_expert_solves_its_task(suite: str, task: int) -> None:
    simulator = make_simulator(SimulatorConfig(suite=suite, render="none"))
    failed = []
    for state in range(STATES):
        simulator.reset(task, initial_state=state)
        expert = make_expert(simulator, seed=state, noise=0.1)
        done = False
        while not done:
            result = simulator.run_chunk(expert.act()[None])
            done = result.done
        if not result.success:
            failed.append((state, expert.phase_name))
    assert len(failed) <= STATES // 20, f"{tasks_of(suite)[task].instruction}: {failed}"


@pytest.mark.parametrize(("suite", "task"), [("tabletop", 0), ("tabletop", 3), ("tabletop", 9), ("tabletop_memory", 1)])
def test_a_demonstration_of_it(suite: str, task: int) -> None:
    simulator = make_simulator(SimulatorConfig(suite=suite, image_size=32))
    recordings = [
        record(simulator, lambda seed: make_expert(simulator, seed=seed, noise=0.1), task=task, seed=4)
        for _ in range(2)
    ]
    assert recordings[0].success
    assert np.array_equal(recordings[0].actions, recordings[1].actions)
    assert recordings[0].images == recordings[1].images
    assert 10 < len(recordings[0].actions) < simulator.spec.max_steps
    assert set(recordings[0].actions[:, 6]) <= {-1.0, 1.0}
    assert not recordings[0].actions[:, 3:5].any(), "roll and pitch have no rail"
    simulator.close()


def test_noise_is_drawn_from_the_seed() -> None:
    simulator = make_simulator(SimulatorConfig(suite="tabletop", render="none"))
    simulator.reset(0, seed=1)
    first, again, other = (make_expert(simulator, seed=seed, noise=0.3).act() for seed in (1, 1, 2))
    calm = make_expert(simulator, seed=1).act()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, calm)
    assert first[6] == calm[6], "none on the gripper"


def test_a_cautious_expert_moves_at_a_share_of_its_speed_and_says_so() -> None:
    simulator = make_simulator(SimulatorConfig(suite="tabletop", render="none"))
    simulator.reset(0, seed=3)
    own, slow = (make_expert(simulator, seed=1, noise=0.3, speed=speed) for speed in (1.0, 0.5))
    for part in ("act()", "intended"):
        usual, slowed = (each.act() if part == "act()" else each.intended for each in (own, slow))
        np.testing.assert_allclose(slowed[:3], 0.5 * usual[:3])
        np.testing.assert_array_equal(slowed[3:], usual[3:])
    assert slow.phase_name == own.phase_name
    for speed in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="give a share of its own speed"):
            make_expert(simulator, speed=speed)
