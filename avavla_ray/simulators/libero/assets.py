"""Where LIBERO's meshes, textures and object files come from; chosen explicitly and recorded in every result."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import cache_folder, sha256, write_json

ENVIRONMENT_VARIABLE = "LIBERO_ASSETS_PATH"
FOLDERS = ("scenes", "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects", "articulated_objects")


@dataclass(frozen=True)
class AssetSource:
    """One set of assets.

    Attributes:
        kind: "official", "bundled" or "path".
        path: its root, laid out like LIBERO's assets.
        digest: SHA-256 over the names and contents of its files.
    """

    kind: str
    path: Path
    digest: str


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


@functools.cache
def digest_of(root: Path) -> str:
    """SHA-256 over relative names and contents below `root`, hidden files left out.

    The official set is large: the digest is kept in the cache for as long as no file's size or time changes.
    """
    stamp = hashlib.sha256()
    for path in _files(root):
        stat = path.stat()
        stamp.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    remembered = cache_folder() / "asset-digests" / f"{stamp.hexdigest()}.json"
    if remembered.exists():
        return json.loads(remembered.read_text())["digest"]
    content = hashlib.sha256()
    for path in _files(root):
        content.update(f"{path.relative_to(root)}\0{sha256(path)}\n".encode())
    write_json(remembered, {"path": str(root), "digest": content.hexdigest()})
    return content.hexdigest()


def _check_layout(path: Path, origin: str) -> Path:
    path = path.expanduser().resolve()
    if not path.is_dir():
        raise InputError(f"{origin} {path} is not a directory: give one that is laid out like LIBERO's assets")
    if not any((path / folder).is_dir() for folder in FOLDERS):
        raise InputError(f"{origin} {path} holds none of {', '.join(FOLDERS)}: give LIBERO's assets directory")
    return path


def _download() -> Path:
    from avavla_ray.simulators.libero.installation import prepare

    prepare()
    import libero.libero

    # hf-libero reports on standard output, in many lines; its progress bar goes to standard error and stays.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(libero.libero.get_assets_path())
    if not path.is_dir():
        raise InputError(
            f"hf-libero could not download its assets: "
            f"set {ENVIRONMENT_VARIABLE} to a copy of them or use --assets bundled"
        )
    return path


def resolve_assets(assets: str, suite: str) -> AssetSource:
    """The set of assets that `assets` names.

    Args:
        assets: "official" (LIBERO_ASSETS_PATH when it is set, else hf-libero's own download), "bundled" (the
            project's own set, built at first use), or a directory laid out like LIBERO's assets.

    Raises:
        InputError: the bundled set does not cover `suite`, the directory does not exist or holds something else,
            or the download failed.
    """
    if assets == "bundled":
        from avavla_ray.simulators.libero.bundled.build import BUNDLED_SUITES, ensure_bundled_assets

        if suite not in BUNDLED_SUITES:
            raise InputError(
                f"the bundled assets do not cover {suite}, only {', '.join(BUNDLED_SUITES)}: "
                f"use --assets official or --assets PATH"
            )
        kind, path = "bundled", Path(ensure_bundled_assets())
    elif assets == "official":
        given = os.environ.get(ENVIRONMENT_VARIABLE)
        kind, path = "official", _check_layout(Path(given), ENVIRONMENT_VARIABLE) if given else _download()
    else:
        kind, path = "path", _check_layout(Path(assets), "assets directory")
    return AssetSource(kind, path, digest_of(path))
