"""Which calvin_env a test uses: the fake beside this file, or the real one; never two mixed in one process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FAKE_ROOT = Path(__file__).resolve().parent / "fake_calvin_env"


def _forget_calvin_env() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "calvin_env"]:
        del sys.modules[name]


@contextlib.contextmanager
def calvin_env_at(root: Path) -> Iterator[None]:
    """CALVIN_ENV_ROOT names `root`, and no other calvin_env is imported before or remains so after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALVIN_ENV_ROOT", str(root))
        patch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "calvin_env").is_dir()])
        _forget_calvin_env()
        yield
        _forget_calvin_env()
