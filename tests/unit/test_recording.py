"""Recording a demonstration: no-ops go, failures are not kept, what is kept is what the simulator showed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from avavla_ray.demonstrations.recording import kept_steps, record
from avavla_ray.demonstrations.schema import decode_image
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure
from tests.support.half_taught import BlankSimulator, PointExpert
from tests.support.point_simulator import MARKS, PointSimulator


def act(*motion: float, gripper: float = -1.0) -> np.ndarray:
    return np.array([*motion, *[0.0] * (6 - len(motion)), gripper], np.float32)


def test_no_ops_are_what_openvla_calls_so():
    still, moving = act(1e-5), act(0.5)
    actions = np.array([still, moving, still, act(1e-5, gripper=1), act(1e-5, gripper=1), moving])
    # Standing still is kept only where it changes the gripper, and not before anything has happened.
    assert kept_steps(actions).tolist() == [False, True, False, True, False, True]


class Straight:
    """Goes straight to the mark; pauses now and then, or does nothing at all."""

    def __init__(self, simulator: PointSimulator, pause: int = 0, lazy: bool = False, drift: float = 0.0) -> None:
        self._simulator, self._pause, self._lazy, self._count = simulator, pause, lazy, 0
        self._drift = act(0.0, drift, gripper=0.0)

    def act(self) -> np.ndarray:
        self._count += 1
        direction = MARKS[self._simulator._task] - self._simulator._position
        resting = self._lazy or (self._pause and self._count % self._pause == 0)
        self.intended = act(0.0) if resting else act(*(direction / np.abs(direction).max()))
        return self.intended + self._drift * (not resting)


class CostlyPictures(PointSimulator):
    """Counts its pictures."""

    pictures, _unseen = 0, False

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        self._unseen = True
        yield
        self._unseen = False

    def _observe(self) -> Observation:
        seen = super()._observe()
        if self._unseen:
            return Observation(np.zeros_like(seen.images), seen.proprio, seen.instruction)
        self.pictures += 1
        return seen


class MustSettle(PointSimulator):
    """Succeeds when the point rests at the mark, and not before."""

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        before, there = self._position.copy(), super().run_chunk(actions)
        success = there.success and bool((before == self._position).all())
        truncated = not success and self._steps >= self.spec.max_steps
        return ChunkResult(there.observation, float(success), success, truncated, there.duration)


class SettlingCostly(MustSettle, CostlyPictures):
    """Both."""


def play(seed: int = 3, make: type[PointSimulator] = PointSimulator, **habits) -> tuple:
    simulator = make(SimulatorConfig(image_size=32))
    first = simulator.reset(1, seed=seed)
    return record(simulator, lambda _: Straight(simulator, **habits), task=1, seed=seed), first, simulator


def test_a_success_is_recorded_with_what_was_seen_before_each_action():
    recording, first, _ = play()
    assert recording.success
    assert recording.dropped == 0
    assert recording.steps == len(recording.actions) == len(recording.proprio) == len(recording.images)
    np.testing.assert_array_equal(decode_image(recording.images[0][0]), first.images[0])
    np.testing.assert_array_equal(recording.proprio[0], first.proprio)
    assert recording.instruction == "reach the mark on the left"
    replayed = PointSimulator(SimulatorConfig(image_size=32))
    replayed.reset(1, seed=3)
    for index, action in enumerate(recording.actions):
        result = replayed.run_chunk(action[None])
        if index + 1 < len(recording.proprio):
            np.testing.assert_array_equal(result.observation.proprio, recording.proprio[index + 1])
    assert result.success


def test_an_episode_with_pauses_is_played_again_without_them():
    straight, _, _ = play()
    recording, _, _ = play(pause=3)
    assert recording.success
    assert recording.dropped > 0
    assert recording.steps == 2 * len(recording.actions) + recording.dropped
    assert kept_steps(recording.actions).all()
    np.testing.assert_allclose(recording.actions, straight.actions, atol=1e-6)


def test_an_episode_may_begin_otherwise_than_by_a_reset():
    """Each time that it is played: seen first, and again without its pauses."""
    simulator = PointSimulator(SimulatorConfig(image_size=32))

    def begin(task: int, seed: int) -> Observation:
        simulator.reset(task, seed=seed)
        return simulator.run_chunk(np.repeat(act(0.0, 1.0)[None], 3, axis=0)).observation

    elsewhere = begin(1, 3)
    recording = record(simulator, lambda _: Straight(simulator, pause=3), task=1, seed=3, begin=begin)
    assert recording.success
    assert recording.dropped > 0
    np.testing.assert_array_equal(recording.proprio[0], elsewhere.proprio)
    assert np.abs(recording.proprio[0] - play()[0].proprio[0]).max() > 0.01


@pytest.mark.parametrize(("nan", "message"), [(False, "in a single colour"), (True, "not finite")])
def test_what_no_working_simulator_sends_ends_the_attempt(nan, message):
    simulator = BlankSimulator(SimulatorConfig(image_size=32), nan=nan)
    with pytest.raises(SimulatorFailure, match=message) as failure:
        record(simulator, lambda _: PointExpert(simulator), task=0, seed=0)
    assert failure.value.kind == "garbage"


@pytest.mark.parametrize("pause", [0, 3])
def test_costly_pictures_are_made_of_what_is_kept_alone(pause: int):
    plain, *_ = play(pause=pause)
    recording, _, simulator = play(make=CostlyPictures, pause=pause)
    assert recording.images == plain.images
    np.testing.assert_array_equal(recording.actions, plain.actions)
    np.testing.assert_array_equal(recording.proprio, plain.proprio)
    assert recording.dropped == plain.dropped
    assert recording.steps == (3 if pause else 2) * len(recording.actions) + recording.dropped
    # Of `play` itself one, one before each action, and one after the last.
    assert simulator.pictures == 1 + len(recording.actions) + 1


def test_pauses_that_were_needed_cost_no_pictures():
    """What fails without them is not looked at."""
    recording, _, simulator = play(make=SettlingCostly, pause=3)
    assert recording.success
    assert recording.dropped == 0
    assert simulator.pictures == 1 + len(recording.actions) + 1


def test_a_failure_costs_no_pictures():
    recording, _, simulator = play(make=CostlyPictures, lazy=True)
    assert not recording.success
    assert simulator.pictures == 1


def test_a_rest_that_was_needed_is_kept():
    recording, *_ = play(make=MustSettle, pause=6)
    assert recording.success
    assert recording.dropped == 0
    assert (recording.actions[-1, :2] == 0).all()
    assert len(recording.images) == len(recording.proprio) == len(recording.actions)


def test_a_failure_leaves_nothing():
    recording, _, _ = play(lazy=True)
    assert not recording.success
    assert recording.images == []
    assert recording.steps == 24


@pytest.mark.parametrize("pause", [0, 3])
def test_what_is_recorded_is_what_the_expert_meant(pause: int):
    calm, *_ = play(pause=pause)
    recording, *_ = play(pause=pause, drift=0.3)
    assert recording.success
    assert (recording.dropped > 0) == bool(pause)
    assert np.abs(recording.actions[:, :2]).max(axis=1) == pytest.approx(1), "the expert's straight way has no drift"
    assert np.abs(recording.proprio[1, :2] - calm.proprio[1, :2]).max() > 0, "the drift was executed"
    assert len(recording.actions) == len(recording.images)
