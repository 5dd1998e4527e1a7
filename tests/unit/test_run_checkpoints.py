"""What a run's folder keeps, gives back and refuses."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

from avavla_ray.errors import InputError
from avavla_ray.training.run_checkpoints import MANIFEST, RunCheckpoints
from avavla_ray.training.run_lock import RunLock
from tests.support.checkpoint_writer import assert_whole, write
from tests.support.small_disks import NAMESPACE, REFUSED, can_mount


def stored(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(run, step, score=None, facts=None, stage=0):
    def fill(folder):
        (folder / "a").write_text(f"at {step}")

    return run.write(step, fill, score=score, facts=facts or {}, stage=stage)


def test_an_empty_or_absent_folder_holds_nothing(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        assert RunCheckpoints(folder).newest() is None
        assert RunCheckpoints(folder).best() is None


def test_what_is_written_is_found_as_it_was(tmp_path):
    run = RunCheckpoints(tmp_path / "run")
    written = write(run, 7)
    assert written.path == tmp_path / "run" / "step-000000007"
    assert_whole(written)
    assert run.newest(verify=True) == written
    assert run.best(verify=True) == written
    assert not [name for name in stored(written.path) if name.startswith(".")]


def test_the_newest_and_the_best_stay(tmp_path):
    run = RunCheckpoints(tmp_path, keep=2)
    seen = []
    for step, score in enumerate((5.0, 1.0, 2.0, 1.0, 3.0, 4.0), start=1):
        put(run, step, score)
        seen.append([int(name[5:]) for name in stored(tmp_path)])
    assert seen == [[1], [1, 2], [2, 3], [3, 4], [4, 5], [4, 5, 6]], "of equal scores the latest is the best"
    assert (run.newest().step, run.best().step) == (6, 4)


def test_the_best_is_that_of_the_newest_ones_stage(tmp_path):
    run = RunCheckpoints(tmp_path, keep=1)
    seen = []
    for step, (stage, score) in enumerate([(0, 1.0), (0, 2.0), (1, None), (1, 4.0), (1, 5.0)], start=1):
        put(run, step, score, stage=stage)
        best = run.best()
        seen.append((best and best.step, [int(name[5:]) for name in stored(tmp_path)]))
    assert seen == [(1, [1]), (1, [1, 2]), (None, [3]), (4, [4]), (4, [4, 5])]


def test_without_scores_the_newest_stay_and_none_is_best(tmp_path):
    run = RunCheckpoints(tmp_path, keep=1)
    for step in range(3):
        put(run, step, float("nan") if step else None)
    assert stored(tmp_path) == ["step-000000002"]
    assert run.newest().score is None
    assert run.best() is None


def test_the_order_is_that_of_numbers(tmp_path):
    run = RunCheckpoints(tmp_path, keep=3)
    for step in (1_000_000_000, 999_999_999):
        put(run, step)
    assert run.newest().step == 1_000_000_000


def test_a_step_written_again_replaces_the_first_only_when_it_is_whole(tmp_path):
    run = RunCheckpoints(tmp_path, keep=1)
    put(run, 3, facts={"attempt": 1})

    def broken(folder):
        (folder / "a").write_text("other")
        assert run.newest(verify=True).facts == {"attempt": 1}
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        run.write(3, broken, score=None, facts={"attempt": 2})
    assert stored(tmp_path) == ["step-000000003"]
    for attempt in (2, 3):
        put(run, 3, facts={"attempt": attempt})
        assert len(stored(tmp_path)) == 1
        assert run.newest(verify=True).facts == {"attempt": attempt}


def _truncate(path):
    os.truncate(path / "a", 1)


def _alter(path):
    (path / "a").write_text("AT 2")


def _remove(path):
    (path / "a").unlink()


def _unmanifest(path):
    (path / MANIFEST).unlink()


def _tear(path):
    os.truncate(path / MANIFEST, 30)


def _rescore(path):
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | {"score": 0.0}))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_truncate, "a has 1 bytes instead of 4"),
        (_alter, "a was altered"),
        (_remove, "a is missing"),
        (_unmanifest, "manifest.json is missing"),
        (_tear, "manifest.json is not one"),
        (_rescore, "manifest.json was altered"),
    ],
)
def test_a_damaged_one_is_set_aside_and_the_next_older_taken(tmp_path, capsys, harm, told):
    run = RunCheckpoints(tmp_path)
    put(run, 1, 2.0)
    harm(put(run, 2, 1.0).path)
    assert run.newest(verify=True).step == 1
    assert told in (printed := capsys.readouterr().out)
    assert str(tmp_path / "step-000000002") in printed
    (aside,) = tmp_path.glob("damaged-step-000000002-*")
    assert aside.is_dir()
    assert run.best(verify=True).step == 1
    put(run, 2)
    assert run.newest(verify=True).step == 2
    assert capsys.readouterr().out == ""


def test_hashes_are_compared_only_on_demand(tmp_path):
    run = RunCheckpoints(tmp_path)
    put(run, 1, 2.0)
    _alter(put(run, 2, 1.0).path)
    assert run.newest().step == run.best().step == 2
    assert run.best(verify=True).step == 1


def test_one_that_is_removed_while_it_is_read_is_no_damage(tmp_path, capsys, monkeypatch):
    run = RunCheckpoints(tmp_path)
    put(run, 1)
    gone = put(run, 2).path
    paths = run._paths()
    monkeypatch.setattr(run, "_paths", lambda: paths)
    gone.rename(tmp_path / ".gone.01234567.tmp")
    assert run.newest().step == 1
    assert capsys.readouterr().out == ""


def test_another_releases_checkpoints_are_left_alone(tmp_path, monkeypatch):
    run = RunCheckpoints(tmp_path)
    with monkeypatch.context() as later:
        later.setattr("avavla_ray.training.run_checkpoints.VERSION", 2)
        put(run, 1)
    with pytest.raises(InputError, match="run_checkpoint 2, this release reads .* 1: resume with the release"):
        run.newest()
    assert stored(tmp_path) == ["step-000000001"]


def test_other_folders_are_left_alone(tmp_path):
    for name in ("step-1", "step-000000009x", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-000000008").write_text("a file")
    run = RunCheckpoints(tmp_path, keep=1)
    put(run, 1)
    put(run, 2)
    assert stored(tmp_path) == ["notes", "step-000000002", "step-000000008", "step-000000009x", "step-1"]


def test_a_writer_first_removes_what_a_killed_one_left(tmp_path):
    left = tmp_path / ".step-000000003.01234567.tmp"
    (left / "policy").mkdir(parents=True)
    beside = []
    RunCheckpoints(tmp_path).write(1, lambda folder: beside.append(left.exists()), score=None, facts={})
    assert beside == [False]
    assert stored(tmp_path) == ["step-000000001"]


def test_none_to_keep_is_refused(tmp_path):
    with pytest.raises(InputError, match="keep 0 leaves no checkpoint to resume from"):
        RunCheckpoints(tmp_path, keep=0)


HOLD = """
import sys, time
from avavla_ray.training.run_lock import RunLock
with RunLock(sys.argv[1]):
    print(flush=True)
    time.sleep(60)
"""


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with (
            pytest.raises(InputError, match=f"{tmp_path} is being written by process {holder.pid} on .*: wait for it"),
            RunLock(tmp_path, patience=0.1),
        ):
            pass
        holder.kill()
        with RunLock(tmp_path, patience=10):
            assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    with RunLock(tmp_path, patience=0):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for act in (RunLock(tmp_path / "file" / "run").__enter__, lambda: put(RunCheckpoints(tmp_path / "file" / "a"), 1)):
        with pytest.raises(InputError, match="file/.* cannot be written"):
            act()


def test_a_lock_on_a_full_disk_is_told_of_in_one_line(tmp_path):
    if not can_mount():
        pytest.skip(REFUSED)
    program = f"""
from avavla_ray.training.run_lock import RunLock
with RunLock({str(tmp_path)!r}):
    pass
"""
    script = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}; cat /dev/zero > {tmp_path}/all 2> /dev/null; "
    done = subprocess.run(
        [*NAMESPACE, script + shlex.join([sys.executable, "-c", program])], capture_output=True, text=True, check=False
    )
    message = f"{tmp_path} cannot be written (No space left on device): mend that or give another"
    assert done.stderr.splitlines()[-1] == f"avavla_ray.errors.InputError: {message}"
