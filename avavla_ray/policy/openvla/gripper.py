"""Between our demonstrations' gripper, which +1 closes in LIBERO and -1 in CALVIN, and that of OpenVLA's data sets, 0
closed and 1 open.

A policy that was trained on the former is exported as one of the latter, since the published layout cannot say which it
is: the last row of the L1 head becomes that of (1 - c a) / 2, where c is the command that closes. One that learns from
our demonstrations begins with the inverse, c (1 - 2 a).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from torch import Tensor

from avavla_ray.dimensions import closing_command
from avavla_ray.errors import InputError
from avavla_ray.normalisation import FieldStatistics, Statistics

_WEIGHT, _BIAS = "head.fc2.weight", "head.fc2.bias"


def open_fraction_weights(name: str, tensor: Tensor, closing: int) -> Tensor:
    """A tensor of the model, by its name there, so that the L1 head says how far open the gripper is."""
    if name not in (_WEIGHT, _BIAS):
        return tensor
    changed = tensor.clone()
    changed[-1] = -0.5 * closing * tensor[-1] if name == _WEIGHT else 0.5 * (1 - closing * tensor[-1])
    return changed


def signed_weights(name: str, tensor: Tensor, closing: int) -> Tensor:
    """The inverse of `open_fraction_weights`."""
    if name not in (_WEIGHT, _BIAS):
        return tensor
    changed = tensor.clone()
    changed[-1] = closing * (-2 * tensor[-1] if name == _WEIGHT else 1 - 2 * tensor[-1])
    return changed


def open_fraction_statistics(statistics: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Statistics of the same actions in the other unit.

    Raises:
        InputError: a data set whose gripper is normalised: the head's numbers are not its units then; or one closes
            with what opens another.
    """
    for name, each in statistics.items():
        if each.action.mask[-1]:
            raise InputError(
                f"statistics of {name} normalise the gripper, which OpenVLA's data sets leave as it is: not exported"
            )
    closing = closing_of(statistics)
    return {name: replace(each, action=_converted(each.action, closing)) for name, each in statistics.items()}


def closing_of(names: Iterable[str]) -> int:
    """The command that closes the gripper in all of these data sets.

    Raises:
        InputError: one closes with what opens another.
    """
    found = {closing_command(name): name for name in names}
    if len(found) > 1:
        raise InputError(
            f"{found[1]} closes the gripper with +1 and {found[-1]} with -1: one OpenVLA head cannot be in both units"
        )
    return next(iter(found))


def _converted(field: FieldStatistics, closing: int) -> FieldStatistics:
    values = {each.name: getattr(field, each.name).copy() for each in fields(field)}
    turned = (("q01", "q99"), ("q99", "q01"), ("minimum", "maximum"), ("maximum", "minimum"), ("mean", "mean"))
    for name, source in turned if closing > 0 else ((each, each) for each, _ in turned):
        values[name][-1] = 0.5 * (1 - closing * getattr(field, source)[-1])
    values["std"][-1] = 0.5 * field.std[-1]
    return FieldStatistics(**values)
