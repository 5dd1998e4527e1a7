"""What a foreign writer of checkpoints could do."""

from __future__ import annotations

import json
from pathlib import Path

from avavla_ray.files import fingerprint


def seal(folder: Path) -> None:
    """Make the manifest agree with the files again, as a foreign writer would have."""
    manifest = json.loads((folder / "manifest.json").read_text())
    members = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    manifest["files"] = {path.relative_to(folder).as_posix(): fingerprint(path) for path in members}
    (folder / "manifest.json").write_text(json.dumps(manifest))
