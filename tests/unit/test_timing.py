"""The tree of what a process spends its time on."""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Iterator

import numpy as np
import pytest

from avavla_ray import timing
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.timing import span


@pytest.fixture
def on() -> Iterator[None]:
    timing.switch(True)
    yield
    timing.switch(False)


def test_spans_make_a_tree_that_starts_anew_when_it_is_taken(on: None) -> None:
    for _ in range(3):
        with span("policy"):
            with span("think"):
                time.sleep(0.01)
            with span("decode"):
                pass
    with span("waiting"):
        time.sleep(0.01)
    taken = timing.take("runner")
    assert list(taken) == ["runner", "runner/policy/think", "runner/policy/decode", "runner/policy", "runner/waiting"]
    assert [count for _, count in taken.values()] == [1, 3, 3, 3, 1]
    assert 0.03 <= taken["runner/policy/think"][0] <= taken["runner/policy"][0] < taken["runner"][0]
    assert taken["runner"][0] >= taken["runner/policy"][0] + taken["runner/waiting"][0]
    assert list(timing.take_seconds("runner")) == ["runner"]


def test_a_span_ends_with_the_exception_that_leaves_it(on: None) -> None:
    with pytest.raises(ValueError), span("policy"), span("think"):
        raise ValueError
    with span("waiting"):
        pass
    assert set(timing.take("r")) == {"r", "r/policy", "r/policy/think", "r/waiting"}


def test_threads_have_places_of_their_own_in_one_tree(on: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with span("loading"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with span("learning"):
        pass
    leave.set()
    thread.join()
    assert set(timing.take("learner")) == {"learner", "learner/learning", "learner/loading"}


def test_nothing_is_kept_while_it_is_off() -> None:
    with span("policy"):
        pass
    assert timing.take("runner") == {}
    assert not timing.is_on()


@pytest.mark.alone
def test_a_span_that_is_off_costs_next_to_nothing() -> None:
    def spanned() -> None:
        with span("policy"):
            pass

    def empty() -> None:
        pass

    spanned_s, empty_s = (min(timeit.repeat(do, number=20_000, repeat=100)) / 20_000 for do in (spanned, empty))
    assert spanned_s < 8 * empty_s  # three calls more: 0.15 us where a call takes 0.05


def test_a_span_beside_another_is_no_part_of_it(on: None) -> None:
    with span("chunk"), span("physics"):
        time.sleep(0.01)
        with span("rendering", beside=True):
            time.sleep(0.03)
    with span("rendering", beside=True):
        pass
    taken = timing.take("simulator")
    paths = ("", "/chunk", "/chunk/physics", "/chunk/rendering", "/rendering")
    assert set(taken) == {f"simulator{path}" for path in paths}
    physics, rendering, both = (taken[f"simulator/chunk{path}"][0] for path in ("/physics", "/rendering", ""))
    assert 0.01 <= physics < rendering
    assert physics + rendering == pytest.approx(both, abs=1e-3)


def test_an_isolated_simulator_tells_where_its_process_spends_its_time(on: None) -> None:
    simulator = IsolatedSimulator(config=SimulatorConfig(suite="tabletop", max_steps=24, image_size=64))
    try:
        simulator.reset(0)
        first = simulator.take_timings()
        assert {"simulator", "simulator/construction", "simulator/reset", "simulator/rendering"} <= set(first)
        begun = time.perf_counter()
        for _ in range(3):
            simulator.run_chunk(np.zeros((8, 7), np.float32))
        time.sleep(0.2)
        with pytest.raises(InputError):
            simulator.run_chunk(np.zeros((8, 7), np.float32))
        simulator.reset(0)
        elapsed = time.perf_counter() - begun
        timings = simulator.take_timings()
        assert timings["simulator/physics"] > 0
        assert timings["simulator/idle"] >= 0.2
        parts = sum(seconds for path, seconds in timings.items() if path.count("/") == 1)
        assert 0.9 * timings["simulator"] < parts <= timings["simulator"]
        assert 0.5 * elapsed < timings["simulator"] < elapsed + 0.1  # the rest is on its way to and from the process
        assert simulator.take_timings() == {}
    finally:
        simulator.close()


def test_an_isolated_simulator_tells_nothing_unless_it_is_asked_to() -> None:
    simulator = IsolatedSimulator(config=SimulatorConfig(suite="tabletop", render="none"))
    try:
        simulator.reset(0)
        assert simulator.take_timings() == {}
    finally:
        simulator.close()
