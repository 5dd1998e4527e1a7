"""Finding the user's calvin_env and saying what it is, with folders that look like clones."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin import installation as module
from avavla_ray.simulators.calvin.installation import Installation, find_root, git_commit, import_module, installation
from tests.support.fake_calvin import FAKE_ROOT, calvin_env_at

COMMIT = "797142c588c21e76717268b7b430958dbd13bf48"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FAKE_ROOT, tmp_path / "calvin_env", ignore=shutil.ignore_patterns("__pycache__")))


def describe(root: Path) -> Installation:
    module._describe.cache_clear()
    with calvin_env_at(root):
        return installation()


def test_without_it_one_line_has_the_two_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALVIN_ENV_ROOT", raising=False)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        find_root()
    message = str(caught.value)
    assert "git clone https://github.com/mees/calvin_env" in message
    assert "export CALVIN_ENV_ROOT=" in message
    assert "pip install '.[calvin]'" in message
    assert "\n" not in message


def test_an_importable_package_is_found_without_the_variable(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with calvin_env_at(clone):
        monkeypatch.delenv("CALVIN_ENV_ROOT")
        monkeypatch.syspath_prepend(str(clone))
        assert find_root() == clone


def test_a_folder_that_is_no_clone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALVIN_ENV_ROOT", str(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path} is no clone"):
        find_root()


@pytest.mark.parametrize("part", ["data/franka_panda/panda_longer_finger.urdf", "conf/tasks/new_playtable_tasks.yaml"])
def test_a_missing_file_is_named(part: str, clone: Path) -> None:
    (clone / part).unlink()
    with calvin_env_at(clone), pytest.raises(InputError, match=f"lacks {clone / part}: set CALVIN_ENV_ROOT"):
        find_root()


def test_commit_of_a_clone(clone: Path) -> None:
    git = clone / ".git"
    assert git_commit(clone) == "unknown"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert git_commit(clone) == "unknown"
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n")
    assert git_commit(clone) == COMMIT
    (git / "refs" / "heads" / "main").write_text("1" * 40 + "\n")
    assert git_commit(clone) == "1" * 40
    (git / "HEAD").write_text("2" * 40 + "\n")
    assert git_commit(clone) == "2" * 40


def test_commit_of_a_submodule_and_of_a_worktree(clone: Path, tmp_path: Path) -> None:
    store = tmp_path / "outer" / "store"
    (store / "refs" / "heads").mkdir(parents=True)
    (store / "refs" / "heads" / "main").write_text(COMMIT)
    place = store / "worktrees" / "one"
    place.mkdir(parents=True)
    (place / "HEAD").write_text("ref: refs/heads/main\n")
    (place / "commondir").write_text("../..\n")
    (clone / ".git").write_text(f"gitdir: {place}\n")
    assert git_commit(clone) == COMMIT


@pytest.mark.parametrize(
    ("commit", "version"),
    [(COMMIT, "main"), ("1431a46bd36bde5903fb6345e68b5ccc30def666", "pinned"), ("3" * 40, "other")],
)
def test_known_commits_have_names(commit: str, version: str, clone: Path) -> None:
    (clone / ".git").mkdir()
    (clone / ".git" / "HEAD").write_text(commit)
    found = describe(clone)
    assert (found.commit, found.version) == (commit, version)


def test_digest_covers_code_and_data(clone: Path) -> None:
    digests = {describe(clone).digest}
    for part in ("calvin_env/envs/tasks.py", "data/franka_panda/panda_longer_finger.urdf", "conf/robot/panda.yaml"):
        with open(clone / part, "a", encoding="utf-8") as stream:
            stream.write("\n")
        digests.add(describe(clone).digest)
    assert len(digests) == 4


def test_a_missing_package_is_named_with_the_command(clone: Path) -> None:
    (clone / "calvin_env" / "envs" / "needy.py").write_text("import pybullet_of_nowhere\n")
    with calvin_env_at(clone), pytest.raises(InputError, match=r"pybullet_of_nowhere.*pip install '\.\[calvin\]'"):
        import_module("calvin_env.envs.needy", clone)


def test_two_clones_in_one_process_are_refused(clone: Path) -> None:
    with calvin_env_at(FAKE_ROOT):
        import_module("calvin_env.envs.tasks", FAKE_ROOT)
        with pytest.raises(InputError, match="new process"):
            import_module("calvin_env.envs.tasks", clone)


def test_another_package_of_that_name_in_front_is_refused(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with calvin_env_at(FAKE_ROOT):
        monkeypatch.setattr(sys, "path", [str(clone), str(FAKE_ROOT), *sys.path])
        with pytest.raises(InputError, match="imported calvin_env from"):
            import_module("calvin_env.envs.tasks", FAKE_ROOT)


@pytest.mark.parametrize("version", ["1.1.1", "1.2.0", "1.4.0"])
def test_a_hydra_that_cannot_run_it_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with calvin_env_at(FAKE_ROOT), pytest.raises(InputError, match=f"hydra-core {version}"):
        import_module("calvin_env.envs.tasks", FAKE_ROOT)


def test_imports_leave_the_process_as_it_was(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (clone / "calvin_env" / "envs" / "loud.py").write_text(
        "import os, sys, warnings\n"
        "warnings.warn('old')\nprint('loud', file=sys.stderr)\nos.write(1, b'louder')\nsys.excepthook = None\n"
    )
    hook = sys.excepthook
    with calvin_env_at(clone):
        import_module("calvin_env.envs.loud", clone)
    assert sys.excepthook is hook
    assert capfd.readouterr() == ("", "")
