"""tabletop_memory: once the lamp is dark, nothing that a policy may see tells which block is the target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.simulators.base import Observation, SimulatorConfig
from avavla_ray.simulators.experts.expert import make_expert
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.simulators.tabletop.goals import REACH
from avavla_ray.simulators.tabletop.tasks import COLOURS, CUE_STEPS

TARGETS = range(len(COLOURS))


@pytest.fixture(scope="module")
def simulators() -> list[TabletopSimulator]:
    """One for each target."""
    return [TabletopSimulator(SimulatorConfig(suite="tabletop_memory", image_size=32)) for _ in TARGETS]


def same(first: Observation, second: Observation) -> bool:
    return (
        np.array_equal(first.images, second.images)
        and np.array_equal(first.proprio, second.proprio)
        and first.instruction == second.instruction
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), chunk=st.sampled_from([1, 3, 8, 13]), fixed=st.booleans())
def test_after_the_cue_the_target_cannot_be_told(
    simulators: list[TabletopSimulator], seed: int, chunk: int, fixed: bool
) -> None:
    start = {"initial_state": seed % 50} if fixed else {"seed": seed}
    random = np.random.default_rng(seed)
    seen = [simulator.reset(target, **start) for target, simulator in enumerate(simulators)]
    steps = 0
    while steps < 5 * CUE_STEPS:
        lit = steps < CUE_STEPS
        for one, other in ((0, 1), (1, 2), (0, 2)):
            assert same(seen[one], seen[other]) != lit, f"after {steps} steps"
        # What is decided in sight of the lamp may differ by its colour, as if to remember it by where the gripper goes.
        decided = random.uniform(-1, 1, (3, 7)) if lit else np.tile(random.uniform(-1, 1, 7), (3, 1))
        results = [
            simulator.run_chunk(np.tile(action, (chunk, 1)))
            for simulator, action in zip(simulators, decided, strict=True)
        ]
        seen = [result.observation for result in results]
        steps += chunk
        if any(result.done for result in results):
            return


def test_the_lamp_has_the_targets_colour(simulators: list[TabletopSimulator]) -> None:
    dark = simulators[0]
    dark.reset(0, seed=1)
    without = dark.run_chunk(np.zeros((CUE_STEPS, 7))).observation.images[0].astype(int)
    for target, simulator in enumerate(simulators):
        lit = simulator.reset(target, seed=1).images[0].astype(int)
        changed = np.abs(lit - without).max(-1) > 40
        assert changed.sum() > 10
        assert lit[changed].mean(0).argmax() == target


def test_the_gripper_is_free_afterwards(simulators: list[TabletopSimulator]) -> None:
    simulator = simulators[0]
    simulator.reset(0, seed=2)
    before = simulator.run_chunk(np.full((CUE_STEPS, 7), 1.0)).observation.proprio
    after = simulator.run_chunk(np.full((CUE_STEPS, 7), 1.0)).observation.proprio
    assert np.abs(after[:3] - before[:3]).min() > 0.02


def go_to(simulator: TabletopSimulator, colour: str) -> bool:
    """Bring the gripper to a block from above; whether that was the episode's success."""
    for height in (0.07, 0.0):
        for _ in range(30):
            goal = simulator.world.block(colour) + np.array([0, 0, height])
            error = goal - simulator.world.gripper[:3]
            if np.linalg.norm(error) < 0.5 * REACH:
                break
            result = simulator.run_chunk(np.array([[*np.clip(error / 0.01, -1, 1), 0, 0, 0, -1]], np.float32))
            if result.done:
                return result.success
    for _ in range(10):
        simulator.run_chunk(np.array([[0, 0, 1, 0, 0, 0, -1]], np.float32))
    return False


@pytest.mark.parametrize("first", TARGETS)
def test_only_the_first_block_that_is_reached_counts(first: int) -> None:
    """So whoever has forgotten the colour succeeds for one target in three, whatever they do."""
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop_memory", render="none", max_steps=400))
    outcomes = []
    for target in TARGETS:
        simulator.reset(target, seed=7)
        simulator.run_chunk(np.zeros((CUE_STEPS, 7)))
        order = [COLOURS[first], *(colour for colour in COLOURS if colour != COLOURS[first])]
        outcomes.append(any(go_to(simulator, colour) for colour in order))
    assert outcomes == [target == first for target in TARGETS]


def test_whoever_remembers_succeeds() -> None:
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop_memory", render="none"))
    for target in TARGETS:
        simulator.reset(target, initial_state=target)
        expert = make_expert(simulator)
        result = simulator.run_chunk(expert.act()[None])
        while not result.done:
            result = simulator.run_chunk(expert.act()[None])
        assert result.success
