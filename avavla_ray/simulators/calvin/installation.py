"""Finds the user's calvin_env, says what it is, and imports it without side effects on this process."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.quiet import quiet_imports

HOW_TO_GET = (
    "run 'git clone https://github.com/mees/calvin_env' and 'export CALVIN_ENV_ROOT=$PWD/calvin_env' "
    "(its Python packages: pip install '.[calvin]')"
)
# The hand with long fingers that the data set was recorded with: what conf/robot/panda_longer_finger.yaml overrides.
ROBOT_FILE = "franka_panda/panda_longer_finger.urdf"
TASK_FILE = "conf/tasks/new_playtable_tasks.yaml"
# The two versions in use: the one that mees/calvin pins, which most published scores were measured with, and main.
KNOWN_COMMITS = {"1431a46": "pinned", "797142c": "main"}


@dataclass(frozen=True)
class Installation:
    """A calvin_env on this machine.

    Attributes:
        root: folder that holds calvin_env/, conf/ and data/.
        commit: of the git clone, "unknown" when it is none.
        version: "pinned" or "main" for the two known commits, else "other".
        digest: SHA-256 over its Python files, configuration and data.
    """

    root: Path
    commit: str
    version: str
    digest: str

    @property
    def data(self) -> Path:
        return self.root / "data"


def find_root() -> Path:
    """Folder of calvin_env: CALVIN_ENV_ROOT, else where the importable package lies; imports nothing.

    Raises:
        InputError: there is none, or it lacks the package, its configuration or its data.
    """
    place = os.environ.get("CALVIN_ENV_ROOT")
    if place:
        root = Path(place).expanduser().resolve()
        if not (root / "calvin_env" / "envs").is_dir():
            raise InputError(f"CALVIN_ENV_ROOT={place} is no clone of mees/calvin_env: {HOW_TO_GET}")
    else:
        spec = importlib.util.find_spec("calvin_env")
        folders = list((spec and spec.submodule_search_locations) or ())
        if not folders:
            raise InputError(f"the CALVIN simulator is not installed (no calvin_env): {HOW_TO_GET}")
        root = Path(folders[0]).resolve().parent
    for part in (TASK_FILE, f"data/{ROBOT_FILE}"):
        need_file(root / part)
    return root


def need_file(path: Path) -> Path:
    """The same path, of a file that belongs to calvin_env.

    Raises:
        InputError: it is not there.
    """
    if not path.is_file():
        raise InputError(f"calvin_env lacks {path}: set CALVIN_ENV_ROOT to a whole clone; {HOW_TO_GET}")
    return path


def git_commit(root: Path) -> str:
    """Commit that the clone at `root` has checked out, read from its .git; "unknown" where there is none."""
    git = root / ".git"
    if git.is_file():  # a submodule or a worktree: a file that names the real folder
        git = (root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
    if not (git / "HEAD").is_file():
        return "unknown"
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    common = git / "commondir"
    store = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
    for folder in (git, store):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8").strip()
    packed = store / "packed-refs"
    if packed.is_file():
        found = re.search(rf"^([0-9a-f]{{40}}) {re.escape(name)}$", packed.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return "unknown"


def _digest(root: Path) -> str:
    total = hashlib.sha256()
    files = [*(root / "calvin_env").rglob("*.py"), *(root / "conf").rglob("*.yaml"), *(root / "data").rglob("*")]
    for path in sorted(path for path in files if path.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@functools.cache
def _describe(root: Path) -> Installation:
    commit = git_commit(root)
    return Installation(root, commit, KNOWN_COMMITS.get(commit[:7], "other"), _digest(root))


def installation() -> Installation:
    """The calvin_env that this process uses.

    Raises:
        InputError: there is none, or it is not whole.
    """
    return _describe(find_root())


def _check_hydra() -> None:
    try:
        version = importlib.metadata.version("hydra-core")
    except importlib.metadata.PackageNotFoundError:
        return  # the import below names what is missing
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if not (1, 3, 2) <= numbers < (1, 4):
        raise InputError(f"hydra-core {version} does not run calvin_env: pip install 'hydra-core>=1.3.2,<1.4'")


def _check_same(root: Path) -> None:
    loaded = sys.modules.get("calvin_env")
    if loaded is not None and Path(loaded.__path__[0]).resolve().parent != root:
        raise InputError(
            f"this process has imported calvin_env from {loaded.__path__[0]}: use {root} in a new process, "
            "without another one on PYTHONPATH"
        )


def import_module(name: str, root: Path) -> ModuleType:
    """Import `name` of the calvin_env at `root`.

    Raises:
        InputError: a package that it needs is missing, or another calvin_env is already imported.
    """
    _check_same(root)
    _check_hydra()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    # Its imports look for a git binary, and the pinned version replaces the hook that prints tracebacks.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    hook = sys.excepthook
    try:
        with quiet_imports():
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("calvin_env"):
            raise InputError(f"calvin_env at {root} has no module {error.name}: {HOW_TO_GET}") from error
        raise InputError(
            f"CALVIN needs the package {error.name}, which is not installed: pip install '.[calvin]'"
            + (" rich" if error.name == "rich" else "")
            + (" on Python 3.11, the newest that pybullet has a wheel for" if error.name == "pybullet" else "")
        ) from error
    finally:
        sys.excepthook = hook
    _check_same(root)
    return module
