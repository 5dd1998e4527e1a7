"""The one exception that means "the input is wrong": it is shown to people as a single line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the caller gave is missing, malformed or unknown.

    The message names the thing and the fix. Jobs print it as one line on standard error and exit with status 2.
    """


class DiskFull(InputError):
    """There is no room for what should be written; what was written before is as it was."""


def quoted(text: str) -> str:
    """`text` in quotes for a message; at most 60 characters of it, the middle left out."""
    shortener = reprlib.Repr()
    shortener.maxstring = 60
    return shortener.repr(text)


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise InputError unless `name` is one of `known`; suggest the closest spelling.

    Args:
        kind: what is being named, as it appears in the message, for instance "suite".
    """
    known = sorted(known)
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise InputError(f"unknown {kind} {name!r}: {hint}")


def check_fraction(kind: str, value: float) -> None:
    """Raise InputError unless `value` lies in [0, 1]."""
    if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise InputError(f"{kind} {value} is outside [0, 1]: give a number between 0 and 1")
