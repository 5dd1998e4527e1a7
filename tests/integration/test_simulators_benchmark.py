"""The benchmark of the simulators measures what its table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.simulators import Settings, main, measure

pytestmark = pytest.mark.libero


def test_ours_is_stock_in_state_and_reference_picture_and_cheaper() -> None:
    numbers = measure(Settings(), seconds=0)
    assert numbers["state_error"] == numbers["reference_image_error"] == 0
    assert numbers["chunks"] == 3
    assert numbers["speedup_vs_stock"] == pytest.approx(numbers["ms_per_step_stock"] / numbers["ms_per_step_fast"])
    assert numbers["speedup_vs_stock"] > numbers["reference_speedup_vs_stock"] > 1.5
    assert 0.9 < numbers["cost_over_physics"] < 2.5
    assert 24 < numbers["image_psnr_db"] < 40


def test_the_file_is_one_flat_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"speedup_vs_stock": 1.5, "suite": "libero_object"}
    monkeypatch.setattr("benchmarks.simulators.measure", lambda settings, seconds: numbers | {"seconds": seconds})
    main(Settings(quick=True, json=tmp_path / "numbers.json"))
    assert json.loads((tmp_path / "numbers.json").read_text()) == {**numbers, "seconds": 15.0}
