"""What local folders stand for: a run's folder that is mirrored to a store, a checkpoint that was brought from one.

Jobs work in local folders; what they print and record names the store's address, which holds on other machines too.
"""

from __future__ import annotations

from pathlib import Path

_addresses: dict[str, tuple[str, str]] = {}  # of a local path: as it may be shown, and with its secrets
_output: list[str] = []


def remember(path: str | Path, shown: str, uri: str, *, output: bool = False) -> None:
    """Note that a local folder or file is a copy of what lies at an address.

    Args:
        shown: the address without secrets. uri: as it was given.
        output: it is where this process's results go.
    """
    _addresses[str(Path(path).absolute())] = (shown, uri)
    if output:
        _output[:] = [shown]


def named(path: str | Path) -> str:
    """The address of what lies at a local path, or below one that has an address; else the path as it is."""
    found = _find(path)
    return str(path) if found is None else found[0]


def address_of(path: str | Path) -> str | None:
    """The same with secrets, to connect with and not to be shown; None for what lies here only."""
    found = _find(path)
    return None if found is None else found[1]


def output_store() -> str | None:
    """Where this process's results are mirrored to; None for nowhere."""
    return _output[0] if _output else None


def tidy(uri: str) -> str:
    """The same address without a slash at the end of its path."""
    base, mark, options = uri.partition("?")
    return f"{base.rstrip('/')}{mark}{options}"


def below(uri: str, inside: str) -> str:
    """The address of something in the folder at `uri`; options stay behind it."""
    if inside in ("", "."):
        return uri
    base, mark, options = uri.partition("?")
    return f"{base.rstrip('/')}/{inside}{mark}{options}"


def _find(path: str | Path) -> tuple[str, str] | None:
    path = Path(path).absolute()
    for folder in (path, *path.parents):
        if str(folder) in _addresses:
            shown, uri = _addresses[str(folder)]
            inside = path.relative_to(folder).as_posix()
            return below(shown, inside), below(uri, inside)
    return None
