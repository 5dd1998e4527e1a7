"""Parts of isolated simulators: memory that can't be taken away, endings in words, garbage told from pictures."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig
from avavla_ray.simulators.isolated.ending import Ending, oom_kills
from avavla_ray.simulators.isolated.faults import make_faulty
from avavla_ray.simulators.isolated.garbage import wrong_observation, wrong_result
from avavla_ray.simulators.isolated.limits import Limits
from avavla_ray.simulators.isolated.memory import SharedMemory
from avavla_ray.simulators.isolated.nursery import modules_of
from avavla_ray.simulators.registry import make_simulator
from tests.support.isolation_faults import CONFIG, SPEC, Dot


def test_memory_is_seen_from_both_sides_and_grows() -> None:
    writer = SharedMemory()
    reader = SharedMemory(os.dup(writer.descriptor))
    small, large = np.arange(7, dtype=np.uint8), np.arange(5000, dtype=np.float32).reshape(2, 2500)
    end = writer.write(small)
    assert end == 64
    np.testing.assert_array_equal(reader.read((7,), "|u1"), small)
    writer.write(large, end)
    np.testing.assert_array_equal(reader.read((2, 2500), "<f4", end), large)
    np.testing.assert_array_equal(reader.read((7,), "|u1"), small)
    assert reader.read((0, 3), "<f4", 10**9).shape == (0, 3)
    with pytest.raises(ValueError, match="hold no"):
        reader.read((10**6,), "<f4")
    writer.close()
    reader.close()
    writer.close()


def test_nobody_can_take_memory_away_from_who_reads_it() -> None:
    memory = SharedMemory()
    memory.grow(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 10)
    memory.close()


@pytest.mark.parametrize(
    ("ending", "kind", "words"),
    [
        (Ending(-signal.SIGSEGV), "crash", "died of SIGSEGV (segmentation fault)"),
        (Ending(-signal.SIGKILL), "crash", "died of SIGKILL (killed)"),
        (Ending(-signal.SIGKILL, oom=True), "memory", "for want of memory"),
        (Ending(-signal.SIGABRT, oom=True), "crash", "SIGABRT"),
        (Ending(-signal.SIGKILL, overweight=3 * 2**30), "memory", "held 3072 MiB"),
        (Ending(3), "crash", "status 3"),
        (Ending(None), "crash", "could not be waited for"),
    ],
)
def test_an_ending_in_words(ending: Ending, kind: str, words: str) -> None:
    assert ending.kind == kind
    assert words in ending.describe()


def test_the_kernel_counts_whom_it_killed() -> None:
    assert oom_kills() >= 0


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3), dtype=np.uint8)


SEEN = Observation(picture(), np.zeros(1, np.float32), "wait")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": np.zeros((1, 16, 16, 3), np.uint8)}, "single colour, (0, 0, 0)"),
        ({"images": picture()[:, :8]}, "instead of uint8 (1, 16, 16, 3)"),
        ({"images": picture().astype(np.float32)}, "images of float32"),
        ({"proprio": np.array([np.inf], np.float32)}, "not finite"),
        ({"proprio": np.zeros(2, np.float32)}, "shape (2,) instead of (1,)"),
    ],
)
def test_garbage_is_told_from_an_observation(changes: dict, words: str) -> None:
    assert wrong_observation(SEEN, SPEC, CONFIG) is None
    wrong = wrong_observation(replace(SEEN, **changes), SPEC, CONFIG)
    assert wrong is not None
    assert words in wrong


def test_black_pictures_are_right_where_nobody_looks() -> None:
    black = replace(SEEN, images=np.zeros_like(SEEN.images))
    assert wrong_observation(black, SPEC, replace(CONFIG, render="none")) is None


def test_garbage_is_told_from_a_result() -> None:
    whole = ChunkResult(SEEN, 1.0, True, False, 4)
    assert wrong_result(whole, SPEC, CONFIG, 4) is None
    assert "5 executed steps of a chunk of 4" in str(wrong_result(replace(whole, duration=5), SPEC, CONFIG, 4))
    assert "0 executed steps" in str(wrong_result(replace(whole, duration=0), SPEC, CONFIG, 4))
    assert "a reward of nan" in str(wrong_result(replace(whole, reward=np.nan), SPEC, CONFIG, 4))


def test_what_is_imported_beforehand_follows_the_suite_and_the_factory() -> None:
    here = "tests.support.isolation_faults"
    assert modules_of(Dot, CONFIG) == (here,)
    assert modules_of(partial(make_faulty, Dot, None), CONFIG) == ("avavla_ray.simulators.isolated.faults", here)
    libero = modules_of(make_simulator, SimulatorConfig())
    assert "avavla_ray.simulators.libero.installation:preload" in libero
    assert modules_of(make_simulator, SimulatorConfig(suite="mine.robots:Arm"))[1:] == ("mine.robots",)


@pytest.mark.parametrize("name", ["start_s", "reset_s", "step_s", "silence_s", "memory_bytes"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Limits(**{name: 0})
