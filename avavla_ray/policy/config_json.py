"""A `PolicyConfig` to and from the JSON of a checkpoint's config.json."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from avavla_ray.errors import InputError
from avavla_ray.policy.config import PolicyConfig, check_config

_T = TypeVar("_T")


def to_json(config: PolicyConfig) -> dict[str, Any]:
    """JSON-ready; tuples become lists. The tokenizer's text is left out: it has a file of its own. So are maps of the
    gate where there are none, and what an older backbone has not: a policy without them is written, and digested, as it
    always was."""
    value = dataclasses.asdict(config)
    del value["tokenizer"]
    if not config.latent.gate_maps:
        del value["latent"]["gate_maps"]
    for later in ("keypoints_from_text", "fine_keypoints"):
        if value["backbone"].get(later) is False:
            del value["backbone"][later]
    if value["backbone"].get("pool") == 1:
        del value["backbone"]["pool"]
    return value


def from_json(value: Any, tokenizer: str = "") -> PolicyConfig:
    """Inverse of `to_json`; a field that an older writer did not know takes its default.

    Args:
        tokenizer: text of the tokenizer.json beside it.

    Raises:
        InputError: not an object, a field that this version does not know, a value of another type, or a
            configuration that no policy can be built from.
    """
    config = dataclasses.replace(build(PolicyConfig, value, "config.json"), tokenizer=tokenizer)
    check_config(config)
    return config


def build(kind: type[_T], value: Any, place: str) -> _T:
    """A configuration dataclass from decoded JSON; `place` opens the message of what is wrong.

    Raises:
        InputError: not an object, an unknown field, or a value of another type.
    """
    if not isinstance(value, dict):
        raise InputError(f"{place} is not an object: it was not written by this project")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise InputError(f"{place} holds unknown fields {', '.join(unknown)}: read it with the version that wrote it")
    return kind(**{name: _convert(hints[name], part, f"{place}: {name}") for name, part in value.items()})


def _convert(hint: Any, value: Any, place: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = _member(typing.get_args(hint), value)
        if hint is types.NoneType:
            return None
    if dataclasses.is_dataclass(hint):
        return build(hint, value, place)  # type: ignore[arg-type]
    if typing.get_origin(hint) is tuple:
        member = typing.get_args(hint)[0]
        if isinstance(value, (list, tuple)):
            return tuple(_convert(member, part, place) for part in value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        return value
    raise InputError(f"{place} has the value {value!r}, which is of the wrong type: it was edited or damaged")


def _member(hints: tuple[Any, ...], value: Any) -> Any:
    """The member of a union (dataclasses and None, or one plain type and None) that a decoded value was written from:
    of dataclasses the one it shares most fields with."""
    if value is None and types.NoneType in hints:
        return types.NoneType
    kinds = [hint for hint in hints if hint is not types.NoneType]
    if not any(map(dataclasses.is_dataclass, kinds)):
        return kinds[0]
    given = set(value) if isinstance(value, dict) else set()
    return max(kinds, key=lambda kind: len(given & {field.name for field in dataclasses.fields(kind)}))
