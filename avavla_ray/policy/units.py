"""Whether a data set's units are those of a policy."""

from __future__ import annotations

from collections.abc import Mapping

from avavla_ray.errors import InputError, check_known
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig


def check_widths(config: PolicyConfig, statistics: Statistics) -> None:
    """To be called wherever a data set's units are about to be used.

    A checkpoint loads with units of any width, since cloning from it brings those of the demonstrations.

    Raises:
        InputError: the data set is of another robot; names it, what was expected and what came.
    """
    for kind, field, width in (
        ("action", statistics.action, config.action_dim),
        ("proprio", statistics.proprio, config.proprio_dim),
    ):
        # A policy without proprioception has no use for its statistics.
        if width and field.q01.shape != (width,):
            raise InputError(
                f"unnorm_key {statistics.name!r}: expected {kind} statistics of shape ({width},), got "
                f"{field.q01.shape}: name a data set of the policy's robot, or clone the policy from demonstrations"
            )


def misfits(config: PolicyConfig, statistics: Mapping[str, Statistics]) -> dict[str, str]:
    """The data sets whose units the policy cannot use, and why, as `check_widths` says it."""
    found = {}
    for name, each in statistics.items():
        try:
            check_widths(config, each)
        except InputError as error:
            found[name] = str(error)
    return found


def pick_statistics(config: PolicyConfig, known: Mapping[str, Statistics], key: str | None) -> Statistics:
    """The units that are meant, of those that a policy knows.

    Raises:
        InputError: no such data set, several and no key, or one of another robot.
    """
    if not known:
        raise InputError("this policy has no statistics: load it with AvaVlaPolicy.from_checkpoint")
    if key is None:
        if len(known) > 1:
            raise InputError(f"unnorm_key: the checkpoint knows {len(known)} data sets, name one of {sorted(known)}")
        key = next(iter(known))
    if not isinstance(key, str):
        raise InputError(f"unnorm_key: expected the name of a data set, got {type(key).__name__}")
    check_known("unnorm_key", key, known)
    check_widths(config, known[key])
    return known[key]
