"""Nodes come and go while PPO trains: runners join and are lost, what they have finished is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.elastic_nodes import A_NODE, MEGABYTES, RUNNERS
from tests.support.node_programs import check_ledger, run_program

# All tests look at what one program did.
pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("elastic")
    found, said = run_program("elastic_nodes", place, timeout=540)
    print(said)
    return found


def test_training_begins_with_the_runners_that_have_room_and_others_join(found) -> None:
    assert found["begun_with"] == A_NODE < RUNNERS


def test_runners_keep_to_the_nodes_with_their_resource(found) -> None:
    holders = found["broadcast"]["holders"]
    assert sorted(map(holders.count, set(holders))) == [A_NODE, RUNNERS - A_NODE]
    assert found["head"] not in holders


def test_weights_lie_once_on_each_node(found) -> None:
    broadcast = found["broadcast"]
    nodes = {found["head"], *broadcast["holders"]}
    assert set(broadcast["at"]) == nodes
    assert set(broadcast["weights_at"]) <= nodes
    for node in nodes:
        assert MEGABYTES - 5 <= broadcast["grown"][node] <= MEGABYTES * 1.5, "a copy a runner would be twice as much"


def test_a_lost_node_loses_no_finished_episode(found) -> None:
    assert found["lost"] == A_NODE == found["restarts"]
    assert found["noticed_after_s"] < 60
    numbers = check_ledger(found)
    # Every simulator of every start of every runner: nothing in between is missing.
    assert len(numbers) >= 2 * (RUNNERS + A_NODE)
    for slot, seen in numbers.items():
        assert sorted(seen) == list(range(len(seen))), slot


def test_runners_that_are_let_go_leave_their_place(found) -> None:
    assert 0 < found["free"] == RUNNERS - found["present"]
