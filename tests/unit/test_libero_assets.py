"""Which assets are meant, what is refused, and what identifies them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.assets import ENVIRONMENT_VARIABLE, digest_of, resolve_assets


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small directory laid out like LIBERO's assets, and a cache of the test's own."""
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "assets"
    (root / "scenes").mkdir(parents=True)
    (root / "scenes" / "floor.xml").write_text("<mujoco/>")
    digest_of.cache_clear()
    return root


def test_a_directory_is_taken_as_it_is(directory: Path) -> None:
    source = resolve_assets(str(directory), "libero_goal")
    assert (source.kind, source.path) == ("path", directory)
    assert source.digest == digest_of(directory)


def test_official_is_the_directory_of_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(directory))
    assert resolve_assets("official", "libero_90").kind == "official"
    assert resolve_assets("official", "libero_90").path == directory


def test_the_digest_follows_names_and_contents_only(directory: Path, tmp_path: Path) -> None:
    first = digest_of(directory)
    (directory / ".hidden").write_text("not part of the set")
    os.utime(directory / "scenes" / "floor.xml", (1, 1))
    digest_of.cache_clear()
    assert digest_of(directory) == first
    (directory / "scenes" / "floor.xml").write_text("<mujoco></mujoco>")
    digest_of.cache_clear()
    changed = digest_of(directory)
    assert changed != first
    (directory / "scenes" / "floor.xml").rename(directory / "scenes" / "ground.xml")
    digest_of.cache_clear()
    assert digest_of(directory) not in (first, changed)


def test_the_digest_is_kept_between_processes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest_of(directory)
    digest_of.cache_clear()
    monkeypatch.setattr("avavla_ray.simulators.libero.assets.sha256", lambda path: pytest.fail(f"read {path} again"))
    assert digest_of(directory) == first


def test_what_is_no_asset_directory_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="assets directory /nowhere is not a directory"):
        resolve_assets("/nowhere", "libero_object")
    with pytest.raises(InputError, match=r"holds none of scenes, .*: give LIBERO's assets directory"):
        resolve_assets(str(directory / "scenes"), "libero_object")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/nowhere")
    with pytest.raises(InputError, match=f"{ENVIRONMENT_VARIABLE} /nowhere is not a directory"):
        resolve_assets("official", "libero_object")


def test_the_bundled_set_says_which_suites_it_covers() -> None:
    with pytest.raises(InputError, match=r"bundled assets do not cover libero_11, only libero_spatial, libero_object"):
        resolve_assets("bundled", "libero_11")


def test_a_failed_download_is_one_line(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT_VARIABLE}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    code = (
        "from avavla_ray.errors import InputError; from avavla_ray.simulators.libero.assets import resolve_assets\n"
        "try: resolve_assets('official', 'libero_object')\n"
        "except InputError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    advice = f"set {ENVIRONMENT_VARIABLE} to a copy of them or use --assets bundled"
    assert run.stdout == f"hf-libero could not download its assets: {advice}\n"
