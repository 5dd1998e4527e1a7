"""Programs of tests/support that make a Ray cluster of several nodes: each has a process and a cluster of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from avavla_ray.policy.checkpoint import save_checkpoint
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy

ROOT = Path(__file__).resolve().parents[2]


def run_program(name: str, place: Path, *words: str, timeout: float) -> tuple[dict[str, Any], str]:
    """What tests/support/NAME.py found, started with a policy and a folder, and what it printed."""
    save_checkpoint(place / "policy", responsive_policy(), point_statistics(), stage="bc", provenance={})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", f"tests.support.{name}", str(place / "policy"), str(place), *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return json.loads((place / "found.json").read_text(encoding="utf-8")), done.stdout


def check_ledger(found: dict[str, Any]) -> dict[str, list[int]]:
    """That every episode reported is in the ledger, and once; the numbers of each simulator's episodes."""
    assert len(set(found["ledger"])) == len(found["ledger"])
    assert set(found["reported"]) == set(found["ledger"])
    numbers: dict[str, list[int]] = defaultdict(list)
    for episode in found["ledger"]:
        slot, _, number = episode.rpartition("-")
        numbers[slot].append(int(number))
    return numbers
