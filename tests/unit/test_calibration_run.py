"""A calibration's folder over several starts of the job."""

from __future__ import annotations

import pytest

from actors.calibration_run import goes_on, note_simulator, noted_simulator
from avavla_ray.errors import InputError
from avavla_ray.tracking import PENDING
from avavla_ray.training.gate_decisions import DecisionFolder


def test_another_recipe_begins_another_run_once_everything_of_the_last_one_is_sent(tmp_path):
    recipe = {"delta": 0.05, "post": "none", "tasks": (1, 2)}
    assert not goes_on(tmp_path, recipe)
    assert goes_on(tmp_path, recipe)
    (tmp_path / PENDING).write_text("{}\n")
    assert goes_on(tmp_path, recipe)
    with pytest.raises(InputError, match=r"has not taken of the recipe before: send it \(python -m"):
        goes_on(tmp_path, recipe | {"delta": 0.1})
    (tmp_path / PENDING).write_text("")
    assert not goes_on(tmp_path, recipe | {"delta": 0.1})
    assert not goes_on(tmp_path, recipe)


def test_the_first_simulator_is_noted(tmp_path):
    folder = DecisionFolder(tmp_path / "decisions")
    note_simulator(folder, {"suite": "tabletop"})
    note_simulator(folder, {"suite": "other"})
    assert noted_simulator(folder) == {"suite": "tabletop"}
