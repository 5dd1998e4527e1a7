"""A machine that is taken away with notice: what its runners had played is learned from after it has gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.leaving_node import HOOK_S, RUNNERS
from tests.support.node_programs import run_program


@pytest.mark.ray
@pytest.mark.long
def test_what_is_handed_in_outlives_the_machine_that_played_it(tmp_path: Path) -> None:
    found, _ = run_program("leaving_node", tmp_path, timeout=240)
    print(found)
    assert found["waited_for"] == RUNNERS
    assert found["lay_there_alone"] >= 6, "in the store of a machine that is to go, and nowhere else"
    assert found["hook"] == 0, "all was handed in"
    assert found["hook_s"] < float(HOOK_S) / 2
    assert found["left"] == RUNNERS
    assert found["lie_on_the_head"] == found["lots"] > found["lay_there_alone"], "the last deliveries, too"
    assert found["left_behind"] == "is lost", "what nobody copied went with the machine"
    assert found["decisions"] == found["handed_in"] > 0
    assert found["learned_from"] > 0
    assert found["dropped"] == 0
