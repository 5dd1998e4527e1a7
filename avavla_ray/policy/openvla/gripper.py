"""Between our demonstrations' gripper, -1 open and +1 closed, and that of OpenVLA's data sets, 0 closed and 1 open.

A policy that was trained on the former is exported as one of the latter, since the published layout cannot say which it
is: the last row of the L1 head becomes that of (1 - a) / 2. One that learns from our demonstrations begins with the
inverse, 1 - 2 a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.normalisation import FieldStatistics, Statistics

_WEIGHT, _BIAS = "head.fc2.weight", "head.fc2.bias"


def open_fraction_weights(name: str, tensor: Tensor) -> Tensor:
    """A tensor of the model, by its name there, so that the L1 head says how far open the gripper is."""
    if name not in (_WEIGHT, _BIAS):
        return tensor
    changed = tensor.clone()
    changed[-1] = -0.5 * tensor[-1] if name == _WEIGHT else 0.5 * (1 - tensor[-1])
    return changed


def signed_weights(name: str, tensor: Tensor) -> Tensor:
    """The inverse of `open_fraction_weights`."""
    if name not in (_WEIGHT, _BIAS):
        return tensor
    changed = tensor.clone()
    changed[-1] = -2 * tensor[-1] if name == _WEIGHT else 1 - 2 * tensor[-1]
    return changed


def open_fraction_statistics(statistics: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Statistics of the same actions in the other unit.

    Raises:
        InputError: a data set whose gripper is normalised: the head's numbers are not its units then.
    """
    for name, each in statistics.items():
        if each.action.mask[-1]:
            raise InputError(
                f"statistics of {name} normalise the gripper, which OpenVLA's data sets leave as it is: not exported"
            )
    return {name: replace(each, action=_converted(each.action)) for name, each in statistics.items()}


def _converted(field: FieldStatistics) -> FieldStatistics:
    values = {each.name: getattr(field, each.name).copy() for each in fields(field)}
    for name, source in (
        ("q01", "q99"), ("q99", "q01"), ("minimum", "maximum"), ("maximum", "minimum"), ("mean", "mean"),
    ):  # fmt: skip
        values[name][-1] = 0.5 * (1 - getattr(field, source)[-1])
    values["std"][-1] = 0.5 * field.std[-1]
    return FieldStatistics(**values)
