"""Small disks that fill up: in a mount namespace of its own, a shell may mount what only its processes see."""

from __future__ import annotations

import shutil
import subprocess

# Followed by a script, in which `mount -t tmpfs -o size=4m tmpfs FOLDER` makes one.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
REFUSED = "this machine lets nobody mount a small disk"


def can_mount() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run([*NAMESPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False).returncode
    )
