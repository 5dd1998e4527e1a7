"""Generates the bundled assets once, into the cache.

They are LIBERO's objects, fixtures and arenas rebuilt from geometric primitives with the names, joints, sites and
dimensions of the originals, so that the published initial states load into them. Nothing is downloaded.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, cache_folder

BUNDLED_SUITES: tuple[str, ...] = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
MANIFEST = ".manifest.json"


def generate() -> dict[str, bytes]:
    """Path below the assets root -> contents, for every file of the set."""
    from avavla_ray.simulators.libero.bundled.arenas import SCENES, scene_xml
    from avavla_ray.simulators.libero.bundled.items import ITEMS
    from avavla_ray.simulators.libero.bundled.mjcf import item_xml
    from avavla_ray.simulators.libero.bundled.textures import TEXTURES, png

    files = {item.path: item_xml(item).encode() for item in ITEMS}
    files |= {scene.path: scene_xml(scene).encode() for scene in SCENES}
    files |= {path: png(recipe.paint()) for path, recipe in TEXTURES.items()}
    return files


@functools.cache
def generator_digest() -> str:
    """SHA-256 over this package's sources: the tables and the code that reads them."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{source.name}\0{len(source.read_bytes())}\0".encode() + source.read_bytes())
    return digest.hexdigest()


def _is_whole(folder: Path) -> bool:
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return False
    sizes: dict[str, int] = json.loads(manifest.read_text())
    return all((folder / path).is_file() and (folder / path).stat().st_size == size for path, size in sizes.items())


def ensure_bundled_assets() -> Path:
    """The root of the generated assets, made now unless they are there and whole.

    Safe to call from several processes at once: one generates, the others wait.

    Raises:
        InputError: the cache cannot be written.
    """
    folder = cache_folder() / "bundled-assets" / generator_digest()[:16]
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(folder.with_suffix(".lock"), "w")  # noqa: SIM115 (closed by the with below)
    except OSError as error:
        raise InputError(f"{folder.parent} cannot be written: {error.strerror}; set AVAVLA_CACHE") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(folder):
            files = generate()
            with atomic_path(folder) as temporary:
                for path, contents in files.items():
                    (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / path).write_bytes(contents)
                sizes = {path: len(contents) for path, contents in files.items()}
                (temporary / MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n")
    return folder
