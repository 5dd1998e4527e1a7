"""The folder of a run belongs to that run."""

from __future__ import annotations

import pytest

from avavla_ray.errors import InputError
from avavla_ray.training.output import SETTINGS, check_output


def test_runs_are_not_mixed(tmp_path):
    identity = {"steps": 10, "seed": 0}
    with pytest.raises(InputError, match="no run to resume"):
        check_output(tmp_path, identity, resume=True)
    check_output(tmp_path, identity, resume=False)
    check_output(tmp_path, identity, resume=True)
    with pytest.raises(InputError, match="add --resume"):
        check_output(tmp_path, identity, resume=False)
    with pytest.raises(InputError, match="seed 0 -> 1, steps 10 -> 20"):
        check_output(tmp_path, {"steps": 20, "seed": 1}, resume=True)
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(InputError, match="not readable"):
        check_output(tmp_path, identity, resume=True)
