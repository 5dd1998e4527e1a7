"""--run-id and AVAVLA_RUNS: where a run lies, and what a command that is given twice does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.files import write_json
from avavla_ray.run_identity import continued, holds_run, with_default_output
from avavla_ray.storage.names import remember
from avavla_ray.training.output import check_output
from avavla_ray.training.run_lock import RunLock

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Of a job that trains."""

    steps: int = 1
    checkpoint: Path | None = None
    demos: tuple[str, ...] = ()
    output: Path = Path("runs/train")
    run_id: str | None = None
    resume: bool = False
    num_runners: int = field(default=2)


@dataclass(frozen=True)
class Collection:
    suite: str = "libero_object"
    output: Path | None = None


@dataclass(frozen=True)
class Import:
    output: Path


@pytest.mark.parametrize(
    ("words", "runs", "output"),
    [
        ("--steps 3", None, None),
        ("--steps 3", "/data", "/data/train"),
        ("--steps 3", "s3://robots/runs/", "s3://robots/runs/train"),
        ("--run-id first", None, "runs/first"),
        ("--run-id first --steps 3", "/data", "/data/first"),
        ("--run_id=spatial/first", "s3://robots/runs?region=eu-west-1", "s3://robots/runs/spatial/first?region=eu-west-1"),
        ("--run-id first --output elsewhere", "/data", None),
        ("--output=elsewhere", "/data", None),
        ("--help", "/data", None),
    ],
)  # fmt: skip
def test_output_follows_from_the_runs_id_where_it_is_left_out(words: str, runs: str | None, output: str | None) -> None:
    argv = words.split()
    expected = argv if output is None else [*argv, "--output", output]
    assert with_default_output(argv, "train", Settings, {} if runs is None else {"AVAVLA_RUNS": runs}) == expected


def test_demonstrations_of_each_suite_have_a_folder_of_their_own() -> None:
    environ = {"AVAVLA_RUNS": "gs://robots"}
    assert with_default_output([], "collect_demos", Collection, environ)[-1] == "gs://robots/demos/libero_object"
    words = with_default_output(["--suite", "tabletop"], "collect_demos", Collection, environ)
    assert words == ["--suite", "tabletop", "--output", "gs://robots/demos/tabletop"]


def test_a_job_whose_output_has_to_be_given_still_asks_for_it() -> None:
    assert with_default_output(["--x"], "import_demos", Import, {"AVAVLA_RUNS": "/data"}) == ["--x"]


@pytest.mark.parametrize("run_id", ["", " ", "/etc", "../other", "a/../../b", "a/", "./a"])
def test_an_id_that_is_no_folders_name_is_refused(run_id: str) -> None:
    with pytest.raises(InputError, match="is no folder's name"):
        with_default_output(["--run-id", run_id], "train", Settings, {})


def begin(output: Path, steps: int, resume: bool) -> None:
    """What every job that trains does with its folder."""
    check_output(output, {"steps": steps}, resume)


def run(settings: Settings, job: str = "train", *, killed: bool = False) -> bool | None:
    """Whether the job was told to resume; None when it was finished already."""
    with contextlib.suppress(KeyboardInterrupt), continued(settings, job) as going:
        if going is None:
            return None
        begin(going.output, going.steps, going.resume)
        if killed:
            raise KeyboardInterrupt
    return going.resume


def test_the_same_command_goes_on_and_then_says_that_it_is_finished(tmp_path: Path, capsys) -> None:
    settings = Settings(output=tmp_path / "a", run_id="a")
    assert run(settings, killed=True) is False
    assert run(settings, killed=True) is True
    assert run(settings) is True
    assert "finished" not in capsys.readouterr().out
    assert run(settings) is None
    assert f"run a is finished, its results are in {tmp_path / 'a'}" in capsys.readouterr().out
    assert run(replace(settings, num_runners=8)) is None, "how many play changes no result"
    assert run(replace(settings, resume=True)) is True, "evaluations play again what simulators gave up"


def test_other_settings_are_named_whether_it_is_finished_or_not(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path / "a", run_id="a")
    for killed in (True, False):
        run(settings, killed=killed)
        with pytest.raises(InputError, match=r"was begun with other settings \(steps 1 -> 2\)"):
            run(replace(settings, steps=2))
    assert run(settings) is None


def test_a_job_that_was_killed_before_it_began_begins(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path / "a", run_id="a")
    with contextlib.suppress(KeyboardInterrupt), continued(settings, "train"):
        write_json(tmp_path / "a/mlflow.json", {})
        raise KeyboardInterrupt
    assert run(settings) is False


def test_another_machine_with_copies_of_its_own_sees_that_it_is_finished(tmp_path: Path) -> None:
    for machine, key in (("one", "old"), ("two", "new")):
        remember(tmp_path / machine, "s3://robots/bc", f"s3://AKIA1:{key}@robots/bc")
    settings = Settings(
        output=tmp_path / "a", run_id="a", checkpoint=tmp_path / "one/checkpoint", demos=("s3://AKIA1:old@robots/d",)
    )
    assert run(settings) is False
    note = (tmp_path / "a/run.json").read_text()
    assert "s3://robots/bc/checkpoint" in note
    assert "s3://robots/d" in note
    assert "AKIA1" not in note
    moved = replace(settings, checkpoint=tmp_path / "two/checkpoint", demos=("s3://AKIA1:new@robots/d",))
    assert run(moved) is None
    assert run(replace(settings, checkpoint=tmp_path / "two/other")) is True


def test_without_an_id_nothing_is_resumed_unasked(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path / "a")
    assert run(settings) is False
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["settings.json"]
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        run(settings)
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        run(replace(settings, run_id="a"))  # which it was not begun with
    assert run(replace(settings, resume=True)) is True


def test_a_folder_belongs_to_one_run_of_one_job(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path / "a", run_id="a")
    run(settings, killed=True)
    with pytest.raises(InputError, match="holds run a of train: give another --run-id"):
        run(replace(settings, run_id="b"))
    with pytest.raises(InputError, match="holds run a of train"):
        run(settings, "evaluate")
    assert run(replace(settings, run_id="b", resume=True)) is True, "who asks for it gets it"


def test_a_refused_job_does_not_use_up_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"), continued(Settings(output=tmp_path / "a", run_id="a"), "x"):
        raise InputError("no checkpoint")
    assert not (tmp_path / "a").exists()
    assert run(Settings(output=tmp_path / "a", run_id="a")) is False


def test_ledgers_count_as_a_run_also_those_of_several_suites(tmp_path: Path) -> None:
    assert not holds_run(tmp_path)
    (tmp_path / "libero_goal").mkdir()
    (tmp_path / "mlflow_pending.jsonl").touch()
    assert not holds_run(tmp_path)
    (tmp_path / "libero_goal/episodes.jsonl").touch()
    assert holds_run(tmp_path)


def test_two_at_once_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avavla_ray.run_identity.DYING_S", 0.1)
    with continued(Settings(output=tmp_path, run_id="a"), "train"):
        with RunLock(tmp_path, 0.1):  # the job's own is another one
            pass
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()}"):
            run(Settings(output=tmp_path, run_id="a"))


def test_a_job_takes_its_output_from_the_environment(tmp_path: Path) -> None:
    words = ["jobs/bc_libero.py", "--demos", "nowhere", "--run-id", "first"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, "AVAVLA_RUNS": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "first/run.json", {"job": "ppo_libero", "run_id": "first", "finished": None})
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, "AVAVLA_RUNS": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{tmp_path}/first holds run first of ppo_libero" in done.stderr
    assert json.loads((tmp_path / "first/run.json").read_text())["job"] == "ppo_libero"
