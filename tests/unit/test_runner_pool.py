"""Runners that come, go, die, hang, fail and are sent home; on real Ray actors that play nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.demand import Demand
from actors.fragment_queue import Lot
from actors.known_runner import Stage
from actors.orders import Order
from actors.runner_pool import DEPTH, RunnerPool
from actors.watchdog import NoTaskLeft
from actors.weights import WeightHandle
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorFailure
from tests.support.plain_runners import PlainGroup

pytestmark = pytest.mark.ray

ORDER = Order(WeightHandle(3, ()), decisions=8)
LOCKSTEP = Order(WeightHandle(3, ()), decisions=8, lockstep=True)
LIMIT_S = 30.0


class Driver:
    """A pool of plain runners with a driver that gives orders and writes down what comes."""

    def __init__(self, folder: Path, seats: int = 2, *, order: Order = ORDER, **options: Any) -> None:
        self.folder, self.order = folder, order
        self.group = PlainGroup(folder, seats)
        self.quarantined: dict[int, str] = {}
        options = {"minimum": 1, "timeout_s": 20.0, **options}
        self.pool = RunnerPool(
            self.group, lambda actor, seat, incarnation: actor.start.remote(incarnation),
            quarantined=self.quarantined, **options,
        )  # fmt: skip
        self.lots: list[Lot] = []

    def fate(self, seat: int, fate: str) -> None:
        (self.folder / f"{seat}.new").write_text(fate)
        (self.folder / f"{seat}.new").rename(self.folder / str(seat))

    def step(self) -> None:
        self.pool.give(self.order)
        if self.pool.references:
            ray.wait(self.pool.references, timeout=0.1, fetch_local=False)
        self.lots += self.pool.advance()

    def until(self, reached: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        end = time.monotonic() + limit_s
        while not reached():
            assert time.monotonic() < end, "not reached in time"
            self.step()

    @property
    def names(self) -> list[str]:
        """Of the episodes, in the order in which they came."""
        return [episode.episode_id for lot in self.lots for episode in lot.report.finished]

    def has(self, incarnation: str) -> bool:
        return any(name.startswith(f"{incarnation}-") for name in self.names)

    def pid(self, seat: int) -> int:
        return int(ray.get(self.group.actors[seat].hello.remote())["pid"])

    def nothing_is_lost(self) -> bool:
        """Each episode came once, and none in between is missing."""
        counts: dict[str, list[int]] = {}
        for name in self.names:
            incarnation, _, number = name.partition("-")
            counts.setdefault(incarnation, []).append(int(number))
        return all(sorted(numbers) == list(range(len(numbers))) for numbers in counts.values())


@pytest.fixture
def driver(ray_cluster: dict, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def make(*arguments: Any, **options: Any) -> Driver:
        drivers.append(Driver(tmp_path, *arguments, **options))
        return drivers[-1]

    yield make
    for each in drivers:
        for seat in each.group.seats:
            each.group.empty(seat)


def test_every_runner_always_has_another_order(driver) -> None:
    d = driver(3)
    d.until(lambda: d.pool.count(Stage.PLAYING) == 3)
    d.until(lambda: len(d.lots) > 30 and all(d.has(f"{seat}.0") for seat in (1, 2, 3)))
    d.pool.give(ORDER)
    assert [len(runner.orders) for runner in d.pool._runners.values()] == [DEPTH] * 3
    assert d.group.healthy == {1, 2, 3}
    assert {lot.report.version for lot in d.lots} == {3}
    assert ray.get(d.lots[0].fragments) == [f"{d.lots[0].runner}.0"]
    assert d.pool.provenance == {"simulator": "none"}
    assert d.pool.incarnations == {1: 0, 2: 0, 3: 0}
    assert d.nothing_is_lost()


def test_a_runner_that_dies_comes_back_as_another_incarnation_and_nothing_delivered_is_lost(driver, capfd) -> None:
    d = driver()
    d.until(lambda: d.has("1.0") and d.has("2.0"))
    pid = d.pid(1)
    os.kill(pid, signal.SIGKILL)
    d.until(lambda: d.has("1.1"))
    assert d.pool.returned == [1]
    assert d.pid(1) != pid
    assert d.nothing_is_lost()
    assert d.pool.incarnations == {1: 1, 2: 0}
    assert capfd.readouterr().out.count("runner 1 is lost") == 1


def test_a_runner_that_dies_with_nothing_to_do_is_noticed_with_its_next_order(driver) -> None:
    d = driver()
    d.until(lambda: d.has("1.0"))
    while d.pool.busy:
        d.lots += d.pool.advance()
    os.kill(d.pid(1), signal.SIGKILL)
    time.sleep(4)
    d.until(lambda: d.has("1.1"))
    assert d.nothing_is_lost()


@pytest.mark.parametrize("fate", ["hang", "start hang"])
def test_a_runner_that_hangs_is_ended_after_the_limit(driver, fate: str) -> None:
    d = driver(timeout_s=2.0)
    if fate == "hang":
        d.until(lambda: d.has("1.0"))
    d.fate(1, f"{fate}once")
    begun = time.monotonic()
    d.until(lambda: d.has("1.1"))
    assert time.monotonic() - begun > 2.0
    assert not d.has("2.1")
    assert d.nothing_is_lost()


def test_a_stopped_process_is_ended_too(driver) -> None:
    d = driver(timeout_s=2.0)
    d.until(lambda: d.has("1.0"))
    os.kill(d.pid(1), signal.SIGSTOP)
    d.until(lambda: d.has("1.1"))
    assert d.nothing_is_lost()


def test_a_runner_whose_node_is_to_go_gets_no_orders_until_it_is_elsewhere(driver, capfd) -> None:
    d = driver()
    d.until(lambda: d.has("1.0") and d.has("2.0"))
    d.fate(1, "leave")
    d.until(lambda: d.pool.count(Stage.LEAVING) == 1)
    (d.folder / "1").unlink()
    assert d.pool.present == 1
    d.until(lambda: not d.pool._runners[1].orders)
    given, had = d.pool._runners[1], len(d.lots)
    d.until(lambda: len(d.lots) > had + 50)
    assert not given.orders
    assert {lot.runner for lot in d.lots[had:]} == {2}
    os.kill(d.pid(1), signal.SIGKILL)
    d.until(lambda: d.has("1.1"))
    assert d.nothing_is_lost()
    assert capfd.readouterr().out.count("runner 1 has handed in what it had") == 1


def test_a_runner_is_thanked_once_when_it_has_handed_in_all_and_another_process_anew(driver) -> None:
    d = driver()
    d.until(lambda: d.has("1.0") and d.has("2.0"))
    assert not d.pool.leaving
    d.fate(1, "leave")
    d.until(lambda: d.pool.leaving == {"here"})
    assert d.pool.count(Stage.LEAVING) == 1
    assert not d.pool._runners[1].orders
    d.pool.thank("elsewhere")
    assert d.pool.leaving == {"here"}
    d.pool.thank("here")
    assert not d.pool.leaving
    (d.folder / "1").unlink()
    os.kill(d.pid(1), signal.SIGKILL)  # which answers after the thanks
    d.until(lambda: d.has("1.1"))
    d.fate(1, "leave")
    d.until(lambda: d.pool.leaving)
    d.pool.thank("here")
    d.pid(1)
    assert (d.folder / "1.thanked").read_text() == "thanks\n" * 2
    assert not (d.folder / "2.thanked").exists()


def test_a_runner_without_orders_hands_in_too_when_its_node_is_to_go(driver) -> None:
    d = driver()
    d.until(lambda: d.has("1.0") and d.has("2.0"))
    while d.pool.busy:
        d.lots += d.pool.advance()
    had = len(d.lots)
    d.fate(1, "leave")
    end = time.monotonic() + LIMIT_S
    while not d.pool.count(Stage.LEAVING):  # and nobody gives an order
        assert time.monotonic() < end
        time.sleep(0.05)
        d.lots += d.pool.advance()
    assert [lot.runner for lot in d.lots[had:]] == [1]
    assert d.pool.count(Stage.PLAYING) == 1


def test_a_false_notice_costs_a_restart(driver) -> None:
    d = driver(timeout_s=3.0)
    d.until(lambda: d.has("1.0"))
    d.fate(1, "leaveonce")
    d.until(lambda: d.has("1.1"))
    assert d.nothing_is_lost()


def test_the_run_begins_with_the_minimum_and_later_ones_join(driver, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("actors.runner_pool.SAY_AFTER_S", 1.0)
    room = tmp_path / "3.room"
    room.write_text("no node has any")
    d = driver(3, minimum=2, timeout_s=1.0)
    d.until(lambda: d.has("1.0") and d.has("2.0"))
    end = time.monotonic() + 3
    d.until(lambda: time.monotonic() > end)  # longer than the limit, which counts from its process on
    assert d.pool.count(Stage.COMING) == 1
    assert capfd.readouterr().out.count("of 3 runners are there") == 1
    room.unlink()
    assert d.pool.let_go() == 3
    assert d.pool.ask() == 3
    d.until(lambda: d.has("3.0"))


def test_nothing_is_played_before_the_minimum_is_there(driver, tmp_path) -> None:
    (tmp_path / "2.room").write_text("no node has any")
    d = driver(2, minimum=2)
    d.until(lambda: d.pool.count(Stage.PLAYING) == 1)
    end = time.monotonic() + 1
    d.until(lambda: time.monotonic() > end)
    assert not d.lots
    assert not d.pool.busy


def test_rounds_are_of_all_and_one_after_the_other(driver) -> None:
    d = driver(3, order=LOCKSTEP, minimum=3)
    d.until(lambda: len(d.lots) >= 12)
    rounds: dict[int, list[int]] = {}
    for lot in d.lots:
        rounds.setdefault(lot.round, []).append(lot.runner)
    assert len(rounds) == 4
    assert all(sorted(runners) == [1, 2, 3] for runners in rounds.values())


def test_a_round_goes_on_without_a_runner_that_dies_in_it(driver) -> None:
    d = driver(2, order=LOCKSTEP, minimum=2)
    d.until(lambda: len(d.lots) >= 4)
    d.fate(1, "dieonce")
    d.until(lambda: d.has("1.1"))
    assert d.nothing_is_lost()
    rounds: dict[int, int] = {}
    for lot in d.lots:
        rounds[lot.round] = rounds.get(lot.round, 0) + 1
    assert {1, 2} >= set(rounds.values())
    assert 1 in rounds.values()


def test_what_a_runner_refuses_is_raised_as_it_is(driver) -> None:
    d = driver()
    d.fate(2, "start refuse")
    with pytest.raises(InputError, match="no simulator here: install one"):
        d.until(lambda: False)


@pytest.mark.parametrize("fate", ["err", "slow err"])
def test_a_fault_of_the_program_is_raised(driver, fate: str) -> None:
    d = driver()
    d.until(lambda: d.has("2.0"))
    d.fate(2, fate)
    with pytest.raises(KeyError, match="a fault of the program"):
        d.until(lambda: False)


def test_simulators_that_never_start_end_the_run_and_now_and_then_they_do_not(driver) -> None:
    d = driver()
    d.fate(2, "start failonce")
    d.until(lambda: d.has("2.1"))
    d.fate(1, "fail")
    d.fate(2, "fail")
    with pytest.raises(SimulatorFailure, match="no simulator starts"):
        d.until(lambda: False, 60)


def test_a_runner_without_a_task_restarts_unless_no_runner_has_one(driver) -> None:
    d = driver()
    d.until(lambda: d.has("2.0"))
    d.fate(2, "no taskonce")
    d.until(lambda: d.has("2.1"))
    d.quarantined[0] = "sick"
    d.fate(2, "no task")
    with pytest.raises(NoTaskLeft):
        d.until(lambda: False)


@pytest.mark.parametrize("fate", ["no weights", "start no weights"])
def test_lost_weights_are_told_and_cost_no_runner(driver, fate: str) -> None:
    d = driver()
    if not fate.startswith("start"):
        d.until(lambda: d.has("2.0"))
    d.fate(2, f"{fate}once")
    d.until(lambda: d.pool.weights_lost)
    d.pool.weights_lost = False
    d.until(lambda: d.has("2.1") if fate.startswith("start") else len(d.lots) > 50)
    assert not d.pool.returned
    assert not d.pool.weights_lost


def test_runners_are_let_go_down_to_the_minimum_and_asked_for_again(driver) -> None:
    d = driver(3, minimum=2)
    d.until(lambda: d.pool.count(Stage.PLAYING) == 3)
    d.until(lambda: len(d.lots) > 10)
    d.pool.give(ORDER)
    assert d.pool.let_go() is None, "all are at work"
    while d.pool.busy:
        d.lots += d.pool.advance()
    assert d.pool.idle == 3
    assert d.pool.ask() is None
    had = len(d.lots)
    assert d.pool.let_go() == 3
    assert d.pool.let_go() is None
    assert d.pool.ask() is None, "it is still to hand in"
    while d.pool.busy:
        d.lots += d.pool.advance()
    assert [lot.runner for lot in d.lots[had:]] == [3]
    assert set(d.group.actors) == {1, 2}
    assert d.pool.ask() == 3
    d.until(lambda: d.has("3.1"))
    assert not d.pool.returned
    assert d.nothing_is_lost()


def test_runners_know_their_place_among_those_that_play(driver) -> None:
    def places(d: Driver) -> dict[int, tuple[int, int]]:
        return {lot.runner: (episode.task, episode.seed) for lot in d.lots for episode in lot.report.finished}

    d = driver(3)
    d.until(lambda: places(d) == {1: (0, 3), 2: (1, 3), 3: (2, 3)})
    (d.folder / "1.room").write_text("no node has any")
    ray.kill(d.group.actors[1])
    d.until(lambda: places(d) == {1: (0, 3), 2: (0, 2), 3: (1, 2)})


def test_an_actor_that_is_gone_for_good_is_made_anew(driver) -> None:
    d = driver()
    d.until(lambda: d.has("1.0"))
    ray.kill(d.group.actors[1])
    d.until(lambda: d.has("1.1"))
    assert d.nothing_is_lost()


def test_demand_weighs_waiting_runners_against_a_waiting_learner() -> None:
    def after(seconds: int, *, idle: int = 0, starved: bool = False) -> list[int]:
        demand = Demand(100.0)
        return [demand.change(float(now), idle=idle, starved=starved) for now in range(seconds)]

    assert not any(after(100, idle=5))
    assert after(101, idle=1) == [0] * 100 + [-1]
    assert after(301, idle=2).count(-1) == 3
    assert after(101, starved=True)[-1] == 1
    assert not any(after(301))
    demand = Demand(100.0)  # half the time one runner is held back: it is half needed
    assert not any(demand.change(float(now), idle=now % 2, starved=False) for now in range(500))
    demand = Demand(100.0)
    changes = [demand.change(float(now), idle=0, starved=now % 3 == 0) for now in range(500)]
    assert not any(changes), "the learner waits for a third of the time"
