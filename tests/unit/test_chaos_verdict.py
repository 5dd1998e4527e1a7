"""What counts as lost when a run was struck."""

from __future__ import annotations

from typing import Any

from benchmarks.chaos_run.strikes import Strike
from benchmarks.chaos_run.verdict import compare, not_worse, success


def end(seed: int, at: float, pid: int = 7) -> dict[str, Any]:
    return {"time": at, "pid": pid, "owner": 1, "task": 0, "seed": seed, "steps": 5, "success": True}


def line(seed: int, at: float = 0.0, name: str = "") -> dict[str, Any]:
    return {"time": at, "task": 0, "seed": seed, "steps": 5, "success": True, "episode_id": name or f"a-{seed}"}


def numbers(records: list, ledger: list, strikes: list[Strike]) -> tuple[int, ...]:
    found = compare(records, ledger, strikes)
    return tuple(found[f"episodes_{name}"] for name in ("lost", "cut", "double", "false"))


def test_every_finished_episode_belongs_in_the_ledger_once():
    records = [{"time": 1.0, "pid": 7, "owner": 1}, end(1, 1.0), end(2, 2.0)]
    assert numbers(records, [line(1, 1.5), line(2, 2.1)], []) == (0, 0, 0, 0)
    assert compare(records, [line(1, 1.5), line(2, 2.1)], [])["episodes_finished"] == 2
    assert numbers(records, [line(1)], []) == (1, 0, 0, 0)
    assert numbers(records, [line(1), line(2), line(2, name="b")], []) == (0, 0, 1, 0)
    assert numbers(records, [line(1), line(2, name="a-1")], []) == (0, 0, 1, 0)
    assert numbers(records, [line(1), line(2), line(3)], []) == (0, 0, 0, 1)


def test_what_was_struck_in_the_moment_of_the_end_had_no_time_to_tell():
    strike = Strike("kill runner", 10.0, doomed=frozenset({7}))
    assert numbers([end(1, 9.0)], [], [strike]) == (0, 1, 0, 0)
    assert numbers([end(1, 11.0)], [], [strike]) == (0, 1, 0, 0)
    assert numbers([end(1, 7.0)], [], [strike]) == (1, 0, 0, 0)
    assert numbers([end(1, 9.0, pid=8)], [], [strike]) == (1, 0, 0, 0)


def test_an_episode_that_waited_for_a_policy_server_ended_with_the_outage():
    outage = Strike("kill server", 2.0, recovered_s=7.0)
    strike = Strike("stop runner", 10.0, doomed=frozenset({7}))
    assert numbers([end(1, 3.0)], [], [strike, outage]) == (0, 1, 0, 0)
    assert numbers([end(1, 1.0)], [], [strike, outage]) == (1, 0, 0, 0)
    stopped = Strike("stop driver", 2.0, back=9.0, recovered_s=20.0)
    assert numbers([end(1, 3.0)], [], [strike, stopped]) == (0, 1, 0, 0)
    assert numbers([end(1, 3.0)], [], [Strike("kill runner", 12.0, doomed=frozenset({7})), stopped]) == (1, 0, 0, 0)


def test_success_is_worse_only_beyond_noise():
    assert success([line(1), {**line(2), "success": False}, line(3)], 2) == (1, 2)
    assert not_worse((20, 40), (24, 40))
    assert not_worse((40, 40), (10, 40))
    assert not not_worse((5, 40), (30, 40))
