"""--output URI and --checkpoint URI of any job."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avavla_ray import files
from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.run_identity import DYING_S
from avavla_ray.storage import fetch, names, publish, transfers
from avavla_ray.storage import mirror as mirrors
from avavla_ray.storage.mirror import Mirror
from avavla_ray.storage.place import Place
from avavla_ray.storage.publisher import Publisher
from avavla_ray.storage.staging import Staging
from avavla_ray.storage.stores import StoreUnreachable
from tests.support.snapshots import Killed, Killer, fetched, fill, held, publisher
from tests.support.stored_job import Settings, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AVAVLA_RUNS", raising=False)
    monkeypatch.setattr(names, "_addresses", {})
    monkeypatch.setattr(names, "_output", [])
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


@pytest.fixture
def job(monkeypatch, capsys):
    """Runs it with these words; exit status, standard output, standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["jobs/stored_job.py", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            run_job(main, Settings, "a job")
        return ended.value.code, *capsys.readouterr()

    return run


def ledger(uri, tmp_path):
    return fetched(Place.of(uri), tmp_path / "reader")["ledger.jsonl"].decode().split()


@pytest.mark.parametrize("form", [("--output", "{}"), ("--output={}",), ("--output", "{}/")])
def test_the_output_is_published_and_named_in_what_is_recorded(job, store, tmp_path, form):
    status, out, _ = job(*(word.format(f"{store}/runs/x") for word in form))
    assert status == 0
    assert f"{store}/runs/x holds nothing yet; working in {tmp_path}/cache/outputs/" in out
    assert f"published to {store}/runs/x (generation 1, 2 files)" in out
    recorded = json.loads(fetched(Place.of(f"{store}/runs/x"), tmp_path / "reader")["provenance.json"])
    assert recorded["store"] == f"{store}/runs/x"


def test_the_same_command_goes_on_with_what_is_there_on_this_machine_and_on_another(job, store, tmp_path, monkeypatch):
    uri = f"{store}/runs/x"
    job("--output", uri, "--line", "first")
    _, out, _ = job("--output", uri, "--line", "second")
    assert f"{uri} holds generation 1; working in" in out
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "elsewhere"))
    job("--output", uri, "--line", "third")
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    _, out, _ = job("--output", uri, "--line", "fourth")
    assert "set aside" not in out
    assert ledger(uri, tmp_path) == ["first", "second", "third", "fourth"]


@pytest.mark.parametrize(("end", "status"), [("wrong", 2), ("bug", RuntimeError)])
def test_what_a_failed_job_has_written_is_published_too(job, store, tmp_path, monkeypatch, end, status):
    uri = f"{store}/runs/x"
    if end == "bug":
        monkeypatch.setattr(sys, "argv", ["jobs/stored_job.py", "--output", uri, "--end", end])
        with pytest.raises(RuntimeError, match="a bug"):
            run_job(main, Settings, "a job")
    else:
        assert job("--output", uri, "--end", end)[0] == status
    assert ledger(uri, tmp_path) == ["line"]


@pytest.fixture
def outage(monkeypatch):
    """Call it: from then on nothing reaches the store any more."""
    monkeypatch.setattr(mirrors, "RETRY_S", 0.02)
    monkeypatch.setattr(Mirror.__init__, "__defaults__", (60.0, 0.1, 0.1, None))

    def ask(place, action, verb="read"):
        raise StoreUnreachable(f"{place}: the store does not answer")

    return lambda: monkeypatch.setattr(transfers, "attempt", ask)


def interrupted(job, uri, outage, monkeypatch, line):
    """A run that goes on, whose store does not answer any more."""
    with monkeypatch.context() as patch:
        patch.setattr("avavla_ray.run_identity.holds_run", None)  # nothing else of it is asked
        append = files.append_line

        def and_then_an_outage(*arguments):
            append(*arguments)
            outage()

        patch.setattr("tests.support.stored_job.append_line", and_then_an_outage)
        answer = job("--output", uri, "--line", line)
    return answer


def test_a_store_that_is_away_at_the_end_is_status_1_and_the_next_start_publishes(
    job, store, tmp_path, outage, monkeypatch
):
    uri, attempt = f"{store}/runs/x", transfers.attempt
    job("--output", uri, "--line", "first")
    status, _, err = interrupted(job, uri, outage, monkeypatch, "second")
    assert status == 1
    (folder,) = (tmp_path / "cache/outputs").glob("*/x")
    assert err.startswith(f"error: not everything is published to {uri} ({uri}/manifest.json: the store does not")
    assert f"python -m avavla_ray.storage.publish {folder} {uri}" in err
    assert len(err.splitlines()) == 1
    monkeypatch.setattr(transfers, "attempt", attempt)
    assert ledger(uri, tmp_path) == ["first"]
    assert job("--output", uri, "--line", "third")[0] == 0
    assert ledger(uri, tmp_path) == ["first", "second", "third"]


def test_what_was_not_published_is_set_aside_when_another_machine_has_gone_on(
    job, store, tmp_path, outage, monkeypatch
):
    uri, attempt = f"{store}/runs/x", transfers.attempt
    job("--output", uri, "--line", "first")
    interrupted(job, uri, outage, monkeypatch, "lost")
    monkeypatch.setattr(transfers, "attempt", attempt)
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "elsewhere"))
    job("--output", uri, "--line", "second")
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    _, out, _ = job("--output", uri, "--line", "third")
    assert "is set aside as" in out
    assert ledger(uri, tmp_path) == ["first", "second", "third"]
    (aside,) = (tmp_path / "cache/outputs").glob("*/x.*.*/ledger.jsonl")
    assert aside.read_text().split() == ["first", "lost"]


def test_the_command_for_what_was_not_published(job, store, tmp_path, outage, monkeypatch, capsys):
    uri, attempt = f"{store}/runs/x", transfers.attempt
    interrupted(job, uri, outage, monkeypatch, "first")
    monkeypatch.setattr(transfers, "attempt", attempt)
    (folder,) = (tmp_path / "cache/outputs").glob("*/x")
    publish.main(folder, uri)
    assert ledger(uri, tmp_path) == ["first"]
    fetch.main(uri, tmp_path / "back")
    assert held(tmp_path / "back") == held(folder)
    fetch.main(f"{uri}/ledger.jsonl", tmp_path / "one.jsonl")
    assert (tmp_path / "one.jsonl").read_text() == "first\n"
    with pytest.raises(InputError, match="is there already"):
        fetch.main(f"{uri}/ledger.jsonl", tmp_path / "one.jsonl")
    # The run goes on after it without a fuss.
    assert "set aside" not in job("--output", uri, "--line", "second")[1]
    assert ledger(uri, tmp_path) == ["first", "second"]


def test_work_whose_publication_failed_is_set_aside_too(store, tmp_path, monkeypatch):
    place = Place.of(f"{store}/runs/x")
    staging = Staging(place)
    ours = Publisher(staging.folder, place, staging.notes, staging.bring())
    fill(staging.folder, {"a": b"1"})
    ours.publish()
    fill(staging.folder, {"a": b"mine"})

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("avavla_ray.storage.publisher.write_manifest", killed)
        ours.publish()
    other = tmp_path / "other"
    fill(other, {"a": b"theirs"})
    publisher(other, place).publish()
    Staging(place).bring()
    assert held(staging.folder) == {"a": b"theirs"}
    (aside,) = staging.folder.parent.glob("x.*.*/a")
    assert aside.read_bytes() == b"mine"


@pytest.mark.parametrize("lost", ["ledger.jsonl", "*"])
def test_what_a_cleaner_removed_here_is_brought_again_and_what_is_unpublished_stays(job, store, tmp_path, lost):
    uri = f"{store}/runs/x"
    job("--output", uri, "--line", "first")
    (folder,) = (tmp_path / "cache/outputs").glob("*/x")
    (folder / "unpublished").write_text("1")
    for path in folder.glob(lost):
        if path.name != "unpublished":
            path.unlink()
    _, out, _ = job("--output", uri, "--line", "second")
    assert f"of {uri} are gone from {folder}: they are brought again" in out
    assert ledger(uri, tmp_path) == ["first", "second"]
    assert (tmp_path / "reader/unpublished").read_text() == "1"
    shutil.rmtree(folder)
    job("--output", uri, "--line", "third")
    assert ledger(uri, tmp_path) == ["first", "second", "third"]


def test_what_is_fetched_again_is_one_generation_and_nothing_else_is_replaced(store, tmp_path, monkeypatch):
    uri, run, into = f"{store}/run", tmp_path / "run", tmp_path / "into"
    fill(run, {"a": b"1", "gone": b"1"})
    publish.main(run, uri)
    with pytest.raises(Killed), Killer(4):
        fetch.main(uri, into)
    fetch.main(uri, into)
    assert held(into) == held(run)
    (into / "own.txt").write_text("of whoever looks at it")
    fill(run, {"a": b"2"})
    publish.main(run, uri)
    fetch.main(uri, into)
    assert held(into) == {"a": b"2", "own.txt": b"of whoever looks at it"}
    fill(tmp_path / "foreign", {"a": b"mine"})
    with pytest.raises(InputError, match="foreign holds what was not fetched from a store: give another folder"):
        fetch.main(uri, tmp_path / "foreign")
    assert held(tmp_path / "foreign") == {"a": b"mine"}


def test_a_run_whose_store_was_emptied_begins_anew(job, store, tmp_path):
    uri = f"{store}/runs/x"
    job("--output", uri, "--line", "old")
    shutil.rmtree(tmp_path / "store")
    job("--output", uri, "--line", "new")
    assert ledger(uri, tmp_path) == ["new"]


@pytest.mark.parametrize("killed", range(1, 14))
def test_a_process_that_was_killed_while_it_brought_a_run_is_repeated(store, tmp_path, killed, monkeypatch):
    root = Place.of(f"{store}/runs/x")
    fill(tmp_path / "run", {"a": b"1", "b": b"2", "c/d": b"3"})
    publisher(tmp_path / "run", root).publish()
    with contextlib.suppress(Killed), Killer(killed, after=bool(killed % 2)):
        Staging(root).bring()
    staging = Staging(root)
    staging.bring()
    assert held(staging.folder) == held(tmp_path / "run")
    assert not list(staging.folder.parent.glob("x.*.*/"))


def test_files_to_read_are_local_copies_and_demonstrations_are_not(job, store, tmp_path):
    fill(tmp_path / "store", {"ckpt/config.json": b"{}", "exit.json": b"preset", "recipe.json": b"recipe"})
    status, out, _ = job(
        "--output", tmp_path / "here", f"--exit-preset={store}/exit.json", "--checkpoint", f"{store}/ckpt",
        "--recipe", f"{store}/recipe.json", "--demos", f"{store}/demos",
    )  # fmt: skip
    assert status == 0
    assert "checkpoint: ['config.json']" in out
    assert "exit_preset: preset" in out
    assert "recipe: recipe" in out
    assert f"demos: ('{store}/demos',)" in out
    assert set(held(tmp_path / "here")) == {"ledger.jsonl", "provenance.json"}


def test_what_is_wrong_is_one_line_and_status_2(job, store, tmp_path):
    for words, message in (
        (("--output", "s4://bucket/x"), "unknown scheme s4"),
        (("--output", "s3:///x"), "names no bucket"),
        (("--checkpoint", f"{store}/none"), "there is nothing at"),
    ):
        status, _, err = job(*words)
        assert status == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1


def test_the_time_between_publications_is_checked(job, store, monkeypatch):
    for text in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("AVAVLA_PUBLISH_SECONDS", text)
        status, _, err = job("--output", f"{store}/x")
        assert (status, err) == (2, f"error: AVAVLA_PUBLISH_SECONDS={text}: give seconds, more than 0\n")


def test_a_run_id_goes_on_and_is_finished_on_whatever_machine_its_command_is_repeated(
    job, store, tmp_path, monkeypatch
):
    monkeypatch.setenv("AVAVLA_RUNS", f"{store}/runs")
    assert job("--run-id", "a-1", "--end", "wrong")[0] == 2
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "elsewhere"))
    status, out, _ = job("--run-id", "a-1")
    assert status == 0
    assert "resume: True" in out
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "third"))
    status, out, _ = job("--run-id", "a-1")
    assert status == 0
    assert "run a-1 is finished" in out
    assert ledger(f"{store}/runs/a-1", tmp_path) == ["line", "line"]


def test_the_rest_of_the_command_line_is_looked_at_before_any_store(job, monkeypatch):
    monkeypatch.setattr("avavla_ray.storage.arguments.brought", None)
    status, _, err = job("--checkpoint", "s3://nowhere/x", "--recipee", "x")
    assert status == 2
    assert "recipee" in err


def test_secrets_in_an_address_are_not_shown(job, monkeypatch, tmp_path):
    fill(tmp_path / "store/ckpt", {"config.json": b"{}"})
    _, out, err = job("--output", f"file://{tmp_path}/store/x?token=hushhush")
    assert "hush" not in out + err


def test_two_processes_of_a_machine_do_not_share_an_output(job, store, monkeypatch):
    staging = Staging(Place.of(f"{store}/runs/x"))
    monkeypatch.setattr("avavla_ray.training.run_lock.time.monotonic", iter(range(0, 10_000, 7)).__next__)
    with staging.lock:
        status, _, err = job("--output", f"{store}/runs/x")
    assert status == 2
    assert err.startswith(f"error: {store}/runs/x: ")
    assert "is being written by process" in err
    assert staging.lock.patience == DYING_S


def test_a_job_that_is_told_to_end_publishes(store, tmp_path):
    uri = f"{store}/runs/x"
    environment = {**os.environ, "AVAVLA_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.stored_job", "--output", uri, "--end", "wait"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "waiting\n":
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    assert ledger(uri, tmp_path) == ["line"]
