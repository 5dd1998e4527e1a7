"""The command lines of this package: words in, exit status out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from avavla_ray.errors import InputError


def call(main: Callable[..., None], types: Sequence[Callable[[str], Any]], words: list[str]) -> NoReturn:
    """Run `main` with as many words as there are types; bad input is one line and status 2."""
    if len(words) != len(types) or any(word in ("-h", "--help") for word in words):
        text = (sys.modules["__main__"].__doc__ or "").strip()
        print(text, file=sys.stdout if "--help" in words or "-h" in words else sys.stderr)
        raise SystemExit(0 if "--help" in words or "-h" in words else 2)
    try:
        main(*(kind(word) for kind, word in zip(types, words, strict=True)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(0)
