"""`CloningSettings` in a TOML file: the same keys, an [augmentation] table and one [[stages]] table a stage."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from avavla_ray.demonstrations.augmentation import Augmentation
from avavla_ray.errors import InputError, check_known
from avavla_ray.training.settings import CloningSettings, Stage

_T = TypeVar("_T")


def read_settings(path: Path, changes: dict[str, Any]) -> CloningSettings:
    """The settings in `path`, with those in `changes` instead of the file's.

    Raises:
        InputError: no such file, not TOML, an unknown key, a value of another type, settings that make no sense; each
            names the file.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML ({error}): write KEY = VALUE lines") from error
    given = _fields(CloningSettings, table, str(path))
    try:
        return CloningSettings(**{**given, **changes})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _fields(kind: type, table: dict[str, Any], place: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    for name in table:
        try:
            check_known("key", name, hints)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return {name: _value(hints[name], value, f"{place}: {name}") for name, value in table.items()}


def _value(hint: Any, value: Any, place: str) -> Any:
    if isinstance(hint, types.UnionType):  # of a type and None, which TOML says by leaving the key out
        (hint,) = (member for member in typing.get_args(hint) if member is not types.NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(typing.cast(type, hint), value, place)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        member = typing.get_args(hint)[0]
        return tuple(_value(member, part, f"{place} {number}") for number, part in enumerate(value, start=1))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise InputError(f"{place} is {value!r}: give {_WANTED[hint]}")


_A_TABLE_EACH = "a [[stages]] table for each stage"
_WANTED = {
    int: "a whole number", float: "a number", bool: "true or false", str: 'a text in "quotes"',
    Augmentation: "an [augmentation] table", Stage: _A_TABLE_EACH, tuple[Stage, ...]: _A_TABLE_EACH,
}  # fmt: skip


def _build(kind: type[_T], table: dict[str, Any], place: str) -> _T:
    missing = [
        field.name
        for field in dataclasses.fields(typing.cast(Any, kind))
        if field.default is dataclasses.MISSING and field.name not in table
    ]
    if missing:
        raise InputError(f"{place} has no {missing[0]}: add {missing[0]} = ...")
    given = _fields(kind, table, place)
    try:
        return kind(**given)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
