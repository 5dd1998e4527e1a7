import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, remove_temporaries, sha256, write_json, write_text
from tests.support.small_disks import NAMESPACE, REFUSED, can_mount


def test_text_replaces_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_failure_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise RuntimeError("half way")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folder_replaces_folder_whole(tmp_path):
    for round_ in ("first", "second"):
        with atomic_path(tmp_path / "out") as temporary:
            temporary.mkdir()
            (temporary / round_).write_text("x")
    assert os.listdir(tmp_path / "out") == ["second"]
    assert os.listdir(tmp_path) == ["out"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_full_disk_is_named(tmp_path):
    with (
        pytest.raises(InputError, match="no space left on the disk that holds .*a.txt"),
        atomic_path(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "below", "x")


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_that_does_not_fit_is_told_of(tmp_path):
    if not can_mount():
        pytest.skip(REFUSED)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.bin").write_bytes(bytes(100_000))
    (tmp_path / "disk").mkdir()
    program = f"""
import os
import shutil
from avavla_ray.files import atomic_path
try:
    with atomic_path("{tmp_path}/disk/copy") as temporary:
        shutil.copytree("{tmp_path}/source", temporary)
finally:
    print(os.listdir("{tmp_path}/disk"))
"""
    script = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk && {sys.executable} -c {shlex.quote(program)}"
    done = subprocess.run([*NAMESPACE, script], capture_output=True, text=True, check=False)
    message = f"no space left on the disk that holds {tmp_path}/disk/copy: free some and repeat"
    assert done.stderr.splitlines()[-1] == f"avavla_ray.errors.DiskFull: {message}"
    assert done.stdout == "[]\n"


def test_what_a_killed_process_left_is_cleared_away_and_no_whole_folder_is(tmp_path: Path) -> None:
    for name in ("update_000001", ".update_000002.0a1b2c3d.tmp", ".update_000001.0a1b2c3d.old",
                 ".update_000003.0a1b2c3d.old"):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["update_000001", "update_000003"]
    assert (tmp_path / "update_000001" / "name").read_text() == "update_000001"
    remove_temporaries(tmp_path / "absent")  # which is not there yet


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "name").write_text("old")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(InputError), atomic_path(tmp_path / "checkpoint") as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert (tmp_path / "checkpoint" / "name").read_text() == "old"
