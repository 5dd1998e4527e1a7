"""Which machines of a cluster an actor may run on: those that offer a Ray resource, which the environment names.

  AVAVLA_SIMULATORS_ON   asked for by every actor that steps simulators, one of it each, besides its processor
  AVAVLA_LEARNERS_ON     asked for by learner ranks, cloning workers and policy servers, so little that it only places

Unset, they run anywhere. cluster/ sets both where a job's driver runs, and machines offer them (ray start --resources).
"""

from __future__ import annotations

import os

from avavla_ray.errors import InputError

SIMULATORS_ON, LEARNERS_ON = "AVAVLA_SIMULATORS_ON", "AVAVLA_LEARNERS_ON"
KINDS = {SIMULATORS_ON: "simulators", LEARNERS_ON: "learners"}
PLACES_ONLY = 0.01
RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


def for_simulators() -> dict[str, float]:
    """Ray resources of an actor that steps simulators."""
    return dict.fromkeys(_named(SIMULATORS_ON), 1.0)


def for_learners() -> dict[str, float]:
    """Of an actor that learns, or decides for others."""
    return dict.fromkeys(_named(LEARNERS_ON), PLACES_ONLY)


def chosen() -> dict[str, str]:
    """What runs on the machines of which resource: {"simulators": NAME, "learners": NAME}, what runs anywhere left out.

    Raises:
        InputError: a name that Ray keeps for itself.
    """
    return {KINDS[variable]: name for variable in KINDS for name in _named(variable)}


def _named(variable: str) -> list[str]:
    name = os.environ.get(variable, "").strip()
    if name in RAYS_OWN:
        raise InputError(f"{variable}={name}: Ray keeps that name; give a resource of your own, such as simulator")
    return [name] if name else []
