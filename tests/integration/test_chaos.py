"""A real run of asynchronous PPO on the table-top, of which everything is killed or stopped while it learns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks.chaos_run.stage import environment
from tests.support.processes import descendants

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

SETTINGS = chaos.Settings(
    seconds=30.0, every=3.0, undisturbed=False, update_decisions=32,
    kinds=tuple(
        f"{how} {part}"
        for how, parts in (
            ("kill", ("simulator", "runner", "server", "learner", "mlflow", "node", "driver")),
            ("stop", ("runner", "server", "learner")),
        )
        for part in parts
    ),
)  # fmt: skip


def test_nothing_that_dies_or_hangs_ends_the_run_or_loses_an_episode(tmp_path: Path, monkeypatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = descendants()
    result = chaos.wreak(SETTINGS, tmp_path / "chaos")
    assert chaos.mismatches(result) == []
    struck = {name.partition(".")[2] for name in result if name.startswith("recovery_s.")}
    assert struck == set(SETTINGS.kinds)
    assert result["episodes_in_ledger"] > 20
    assert result["episodes_cut"] <= result["kills"] * SETTINGS.num_runners * SETTINGS.simulators
    assert result["recovery_p95_s"] < 240  # seconds on a machine that does nothing else
    log = (tmp_path / "chaos" / "struck" / "driver.log").read_text()
    assert re.search(r"resumed after update \d+", log), "the driver was killed, and its run went on"
    assert descendants() <= before, "nothing is left behind"
