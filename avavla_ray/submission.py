"""The runtime environment of a job that is submitted: the code that git knows, its commit, and variables.

    ray job submit --runtime-env-json "$(python -m avavla_ray.submission NAME=VALUE ...)" -- python jobs/evaluate.py ...

NAME=VALUE are environment variables of all of the job's processes. What git does not know is not shipped, or the
commit would not say what ran; it is named on standard error. docs/jobs.md says more.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.provenance import COMMIT, git_commit

ROOT = Path(__file__).resolve().parent.parent
# `ray job stop` kills so many seconds after it has told a job to end. Ray's 3 are few for a checkpoint.
STOP = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_S = "30"
SECRET = re.compile(r"(^|_)(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(_|$)")
# In an address: a password before its host (a number there is a port), or a key behind its question mark.
SECRET_IN_ADDRESS = re.compile(
    r"://[^/?#:\s]*:(?!\d*(?:[/?#]|$))\S*@|://\S*[?&](?:sig|[^=&\s]*(?:key|secret|token|password|signature|credential)[^=&\s]*)=",
    re.IGNORECASE,
)


def runtime_env(variables: Mapping[str, str]) -> dict[str, Any]:
    """As Ray takes it.

    Raises:
        InputError: a variable that is a secret by its name, or holds one in an address: Ray's dashboard shows a job's
            environment.
    """
    for name, value in variables.items():
        if SECRET.search(name.upper()) or SECRET_IN_ADDRESS.search(value):
            raise InputError(f"{name} would be shown in Ray's dashboard: give it to the cluster's machines instead")
    commit = git_commit()
    known = {} if commit == "unknown" else {COMMIT: commit}
    excludes = [f"/{_literally(path)}" for path in untracked(ROOT)]
    return {"working_dir": str(ROOT), "excludes": excludes, "env_vars": {STOP: STOP_S, **known, **variables}}


def untracked(root: Path) -> list[str]:
    """Files and whole folders that git neither tracks nor ignores; none outside a checkout, where all is shipped.

    Only .gitignore counts: what git ignores for other reasons (.git/info/exclude, the user's own list) Ray would ship.
    """
    words = ["git", "-C", str(root), "ls-files", "--others", "--exclude-per-directory=.gitignore", "--directory", "-z"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [path.rstrip("/") for path in done.stdout.split("\0") if path]


def _literally(path: str) -> str:
    """As a pattern that matches this path and no other."""
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


def main(words: Sequence[str]) -> None:
    pairs = [word.partition("=") for word in words]
    if any(not (name and equals) for name, equals, _ in pairs):
        raise InputError(f"{' '.join(words)}: expected NAME=VALUE ...")
    environment = runtime_env({name: value for name, _, value in pairs})
    if left := untracked(ROOT):
        print(f"not shipped, since git does not know it ('git add' it): {', '.join(left)}", file=sys.stderr)
    print(json.dumps(environment))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
