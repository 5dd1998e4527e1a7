"""Settings as they may be written down: run folders are published, and read on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avavla_ray.storage.names import named


def recorded(value: Any) -> Any:
    """A setting with addresses in place of this machine's copies of them, and without the secrets in addresses.

    Raises:
        InputError: an address is malformed.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Path):
        return named(value)
    if isinstance(value, list | tuple):
        return [recorded(each) for each in value]
    if isinstance(value, dict):
        return {name: recorded(each) for name, each in value.items()}
    return value


def _text(value: str) -> str:
    if "://" not in value:
        # Some options take a name or a file, which may be a copy, too.
        return named(value) if value.startswith("/") else value
    from avavla_ray.storage.stores import scheme_of, without_secrets  # only here: it loads pyarrow

    return without_secrets(value) if scheme_of(value) else value
