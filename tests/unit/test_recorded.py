"""What is written down of a job's settings: no secrets, and no paths that hold on one machine only."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from actors import ppo_job
from avavla_ray.errors import InputError
from avavla_ray.job_chain import run_stage
from avavla_ray.storage.names import remember
from avavla_ray.storage.recorded import recorded
from jobs import ablate, sweep_gae

SECRET = "s3://AKIA1:hushhush@robots/demos?region=eu-west-1"
SHOWN = "s3://robots/demos?region=eu-west-1"


class Begun(Exception):
    """The settings are written; the rest takes a cluster."""


def test_addresses_lose_their_secrets_and_copies_get_their_addresses(tmp_path: Path) -> None:
    copy = tmp_path / "copies/0123/checkpoint"
    remember(copy, "s3://robots/bc/checkpoint", "s3://AKIA1:hushhush@robots/bc/checkpoint")
    assert recorded((SECRET, "demos/local")) == [SHOWN, "demos/local"]
    assert recorded({"a": copy / "x.json", "b": str(copy)}) == {
        "a": "s3://robots/bc/checkpoint/x.json", "b": "s3://robots/bc/checkpoint",
    }  # fmt: skip
    for other in ("paper", "a.module:Class", str(tmp_path), 3, None, "runs/"):
        assert recorded(other) == other
    assert recorded(Path("runs/bc")) == "runs/bc"


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that get as far as their settings; that the demonstrations are there is looked up before."""

    def stop(**_: object) -> None:
        raise Begun

    monkeypatch.setattr("actors.cluster.connect", stop)
    monkeypatch.setattr(ppo_job, "check", lambda *_: None)
    monkeypatch.setattr(ablate, "check", lambda *_: None)
    monkeypatch.setattr("avavla_ray.job_chain.run_stage", lambda *_: stop())


def written(output: Path) -> str:
    text = (output / "settings.json").read_text()
    assert "hushhush" not in text
    assert "AKIA1" not in text
    return text


def test_ppo_writes_no_secret(tmp_path: Path, begun: None) -> None:
    job = ppo_job.Settings(
        suite="tabletop", demos=SECRET, recipe="tiny", output=tmp_path / "run", isolate=False,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip
    with pytest.raises(Begun):
        ppo_job.run(job, calvin=False)
    assert SHOWN in written(job.output)
    with pytest.raises(Begun):  # with new keys it is the same run
        ppo_job.run(replace(job, demos=SECRET.replace("hushhush", "other"), resume=True), calvin=False)


def test_an_ablation_writes_no_secret(tmp_path: Path, begun: None) -> None:
    job = ablate.Settings(
        suite="tabletop", preset="tiny", demos=SECRET, output=tmp_path / "run",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip
    with pytest.raises(Begun):
        ablate.main(job)
    assert SHOWN in written(job.output)


def test_a_sweep_is_given_no_secret_that_tune_would_write(tmp_path: Path, begun: None) -> None:
    from avavla_ray.policy.checkpoint import save_checkpoint
    from tests.support.point_simulator import point_statistics
    from tests.support.policies import responsive_policy

    save_checkpoint(tmp_path / "bc", responsive_policy(), point_statistics(), stage="bc", provenance={})
    job = sweep_gae.Settings(
        checkpoint=tmp_path / "bc", suite="tabletop", demos=SECRET, recipe="tiny", isolate=False,
        output=tmp_path / "run", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip
    with pytest.raises(InputError, match="--demos has keys in its address"):
        sweep_gae.main(job)
    with pytest.raises(Begun):
        sweep_gae.main(replace(job, demos=SHOWN))


def test_a_chain_shows_no_secret(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    run_stage("cloning", "bc_libero", ["--demos", SECRET])
    assert f"$ python jobs/bc_libero.py --demos {shlex.quote(SHOWN)}\n" in capfd.readouterr().out
