"""Golden values of the evaluation's initial states, made with the protocol's published code."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from avavla_ray.simulators.calvin.initial_states import (
    ROBOT_START,
    condition_seed,
    fnv1,
    published_blocks,
    published_conditions,
    scene_vector,
)

# Condition number, its seed, and the yaw of red, blue and pink.
GOLDEN = [
    (0, 432992106, (1.4418709252147632, 1.4098806994949187, 1.5630616199523633)),
    (100, 3717197060, (1.5477270532138956, 1.5529555943710178, 1.3880413275466186)),
    (191, 210305892, (1.3279679447244033, 1.7808302900741577, 1.4218841723121758)),
]


def test_hash_from_zero_gives_the_usual_offset_basis() -> None:
    # How the 32-bit offset basis of FNV came to be: the hash from zero of its author's signature.
    assert fnv1(rb"chongo <Landon Curt Noll> /\../" + b"\\") == 0x811C9DC5


def test_there_are_192_conditions() -> None:
    conditions = published_conditions()
    assert len({tuple(condition.values()) for condition in conditions}) == len(conditions) == 192


@pytest.mark.parametrize(("number", "seed", "yaws"), GOLDEN)
def test_golden_conditions(number: int, seed: int, yaws: tuple[float, ...]) -> None:
    condition = published_conditions()[number]
    assert condition_seed(condition) == seed
    scene = scene_vector(condition, published_blocks(condition))
    assert tuple(scene[[11, 17, 23]]) == yaws


def test_all_published_states_to_the_last_digit() -> None:
    total = hashlib.sha256()
    for condition in published_conditions():
        total.update(scene_vector(condition, published_blocks(condition)).tobytes())
    assert total.hexdigest() == "e551ab1eb96645a014cfc8e0af61e363e4bbc7176db11dc62b4734c7f8f6160b"


def test_states_hold_what_the_condition_says() -> None:
    condition = published_conditions()[191]
    scene = scene_vector(condition, published_blocks(condition))
    assert tuple(scene[:6]) == (0.28, 0.22, 0.0, 0.088, 1.0, 1.0)
    assert ROBOT_START.shape == (15,)
    assert scene[6] < 0 < scene[12]  # red in the left compartment, blue in the right one


def test_blocks_follow_the_order_of_the_scene() -> None:
    condition = published_conditions()[0]
    blocks = published_blocks(condition)
    scene = scene_vector(condition, blocks, ("pink_block", "blue_block", "red_block"))
    np.testing.assert_array_equal(scene[6:12], blocks["pink_block"])
    np.testing.assert_array_equal(scene[18:24], blocks["red_block"])


def test_a_door_with_a_shorter_way_goes_as_far_as_it_can() -> None:
    condition = next(c for c in published_conditions() if c["slider"] == "left")
    assert scene_vector(condition, published_blocks(condition), door_left=0.24)[0] == 0.24
