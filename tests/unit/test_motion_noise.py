"""Disturbances of an expert: seeded, of the deviation asked for, alike from step to step, and none on request."""

from __future__ import annotations

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.experts.noise import CORRELATION_STEPS, SHARES, MotionNoise

REST = np.zeros(7, np.float32)


def course(noise: MotionNoise, steps: int) -> np.ndarray:
    return np.array([noise.disturbed(REST) for _ in range(steps)])


def test_its_deviation_and_memory_are_those_promised() -> None:
    seen = course(MotionNoise(0.1, 6, seed=0), 20_000)[:, :6]
    assert seen.std(axis=0) == pytest.approx(0.1 * np.array(SHARES), rel=0.1)
    for lag in (1, 8):
        likeness = np.mean(seen[lag:, 0] * seen[:-lag, 0]) / np.mean(seen[:, 0] ** 2)
        assert likeness == pytest.approx(np.exp(-lag / CORRELATION_STEPS), abs=0.03)


def test_it_depends_on_the_seed_alone_and_leaves_the_gripper_alone() -> None:
    first, again, other = (course(MotionNoise(0.3, 6, seed=seed), 5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert not first[:, 6].any()


def test_still_steps_and_no_noise_are_undisturbed_and_no_action_leaves_its_range() -> None:
    noise = MotionNoise(5.0, 3, seed=0)
    np.testing.assert_array_equal(noise.disturbed(REST, still=True), REST)
    assert np.abs(course(noise, 50)).max() == 1
    np.testing.assert_array_equal(MotionNoise(0.0, 6, seed=0).disturbed(REST + 0.5), REST + 0.5)


@pytest.mark.parametrize("deviation", [-0.1, float("nan")])
def test_a_deviation_that_is_none_is_refused(deviation: float) -> None:
    with pytest.raises(InputError, match="is negative: give 0 or more"):
        MotionNoise(deviation, 6, seed=0)
