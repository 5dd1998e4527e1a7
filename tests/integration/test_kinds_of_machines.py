"""Each kind of actor keeps to its kind of machine, in the jobs themselves and while machines go and come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.node_programs import check_ledger, run_program

pytestmark = pytest.mark.ray
BOTH = ["simulator 1", "simulator 2"]


def run(place: Path, what: str) -> tuple[dict[str, Any], str]:
    """What the program found, and what it printed."""
    return run_program("placed_nodes", place, what, timeout=540)


@pytest.mark.long
def test_jobs_keep_simulators_and_learners_to_their_machines(tmp_path: Path) -> None:
    found, said = run(tmp_path, "placement")
    assert found["trained"] == {"SimulatorEnvRunner": BOTH, "Learner": ["learner 1"], "PolicyServer": ["learner 1"]}
    assert found["evaluated"] == {**found["trained"], "Evaluator": BOTH, "DecisionServer": ["learner 1"]}
    assert found["machines"] == {"simulators": "simulator", "learners": "learner"}
    assert "simulators run on machines that offer simulator\nlearners run on machines that offer learner\n" in said
    assert "no machine of the cluster offers" not in said


@pytest.mark.long
def test_cloning_keeps_to_the_learners_machine(tmp_path: Path) -> None:
    found, _ = run(tmp_path, "cloning")
    assert found["cloned"].pop("RayTrainWorker") == ["learner 1"]
    assert not any(node.startswith("simulator") for nodes in found["cloned"].values() for node in nodes)


@pytest.fixture(scope="module")
def lost(tmp_path_factory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("losses"), "losses")[0]


@pytest.mark.long
@pytest.mark.timeout(600)
class TestLosses:
    def test_training_goes_on_without_a_machine_and_a_runner_lands_on_the_next(self, lost: dict[str, Any]) -> None:
        assert lost["begun"]["SimulatorEnvRunner"] == BOTH
        assert "simulator 3" in lost["joined"]["SimulatorEnvRunner"]
        assert lost["runner_restarts"] >= 1

    def test_the_learner_goes_on_from_its_snapshot_when_a_machine_is_back(self, lost: dict[str, Any]) -> None:
        assert "learner 2" in lost["returned"]["Learner"]
        assert "learner 2" in lost["returned"]["PolicyServer"]
        assert lost["moved_since_then"] < lost["moved_since_the_start"] / 2
        assert lost["back_after_s"] < 90

    def test_nothing_but_the_driver_was_ever_on_the_head(self, lost: dict[str, Any]) -> None:
        for when in ("begun", "alone", "joined", "returned"):
            assert all("head" not in nodes for nodes in lost[when].values()), when

    def test_no_finished_episode_is_lost_or_counted_twice(self, lost: dict[str, Any]) -> None:
        numbers = check_ledger(lost)
        for slot, seen in numbers.items():
            assert sorted(seen) == list(range(len(seen))), slot
