"""What must hold before LIBERO is imported, and what is said when it does not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators import opengl
from avavla_ray.simulators.libero import installation

IMPORT_LIBERO = "from avavla_ray.simulators.libero.installation import prepare; prepare()"


@pytest.fixture
def fresh_root() -> Iterator[None]:
    installation.libero_root.cache_clear()
    yield
    installation.libero_root.cache_clear()


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_import_asks_nothing_and_prints_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIBERO_")}
    environment |= {"AVAVLA_CACHE": str(tmp_path), "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_LIBERO], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (config,) = tmp_path.glob("libero-config/*/config.yaml")
    assert f'bddl_files: "{installation.libero_root()}/bddl_files"' in config.read_text().splitlines()
    assert not (tmp_path / "home" / ".libero").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, fresh_root: None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"no package hf-libero.*make setup"):
        installation.libero_root()


def test_a_missing_opengl_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setitem(opengl.GL_LIBRARIES, "egl", ("libNoSuchThing.so.1", "libegl1"))
    with pytest.raises(InputError, match=r"libNoSuchThing.so.1.*apt-get install libegl1"):
        opengl.check_opengl()


def test_a_backend_that_needs_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(InputError, match="MUJOCO_GL=glfw cannot render headless: set it to egl or osmesa"):
        opengl.check_opengl()


def test_a_log_of_another_user_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "ROBOSUITE_LOG", tmp_path / "robosuite.log")
    installation._check_robosuite_log()
    (tmp_path / "robosuite.log").touch()
    installation._check_robosuite_log()
    # root may write anything, so the answer of the system is replaced, not the file's mode.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"robosuite.log, which belongs to another user"):
        installation._check_robosuite_log()


@pytest.mark.parametrize("visible", ["", "3", "GPU-5e1f"])
def test_cuda_devices_do_not_matter(visible: str) -> None:
    code = f"{IMPORT_LIBERO}; import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    done = run(code, CUDA_VISIBLE_DEVICES=visible)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{visible}\n", "")


def test_an_egl_device_that_is_not_there_is_one_line() -> None:
    code = """
from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.installation import prepare
try:
    prepare()
except InputError as error:
    print(error)
"""
    done = run(code, MUJOCO_EGL_DEVICE_ID="99")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OpenGL cannot render headless here (")
    assert done.stdout.count("\n") == 1
