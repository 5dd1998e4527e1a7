"""The 1,000 chains of five tasks of CALVIN's evaluation, computed from the published rules.

For the i-th of the 192 published conditions, NumPy's generator is seeded with i and deals five different tasks at a
time until enough deals are chains: each task has exactly one outcome in the condition that the ones before it left, and
no two tasks are of one kind. The conditions share the 1,000 chains as evenly as possible, and a shuffle with seed 0
mixes them.

Millions of deals make 1,000 chains, so the result is kept in the cache folder, and its hash is checked at each use.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avavla_ray.files import cache_folder, write_text
from avavla_ray.simulators.calvin.initial_states import published_conditions
from avavla_ray.simulators.calvin.rules import KEYS, Condition, outcomes
from avavla_ray.simulators.calvin.tasks import TASKS

COUNT, LENGTH = 1000, 5
# Of `canonical_json`; the published generator, which takes minutes, gives the same.
SHA256 = "13bc4fad80a302e6405e5f4f800cc028789a245409cd12df39b783099ad4860f"
DEALS_AT_ONCE = 8192


@dataclass(frozen=True)
class Sequence:
    """A chain: the condition of the scene before it, and its tasks."""

    condition: Condition
    tasks: tuple[str, ...]


def _kind(task: str) -> str:
    """Tasks of one kind never share a chain."""
    if task.startswith(("rotate_", "push_")) and task != "push_into_drawer":
        return "move a block"
    if task.startswith("turn_"):
        return "light"
    for start, kind in (("move_slider", "slider"), ("place_", "place")):
        if task.startswith(start):
            return kind
    if task.startswith("lift_"):
        return "lift from " + task.rsplit("_", 1)[1]
    return "drawer" if task in ("open_drawer", "close_drawer") else task


KINDS = tuple(_kind(task) for task in TASKS)


def _condition_graph() -> np.ndarray:
    """(conditions, tasks): for each condition that can be reached, the number of the one after each task.

    The published conditions come first; -1 where a task has not exactly one outcome.
    """
    numbers = {tuple(condition.values()): number for number, condition in enumerate(published_conditions())}
    waiting = list(published_conditions())
    after: list[list[int]] = []
    while len(after) < len(waiting):
        row = []
        for task in TASKS:
            made = outcomes(task, waiting[len(after)])
            if len(made) == 1:
                key = tuple(made[0].values())
                if key not in numbers:
                    numbers[key] = len(waiting)
                    waiting.append(made[0])
            row.append(numbers[key] if len(made) == 1 else -1)
        after.append(row)
    return np.array(after)


def _chains_from(number: int, wanted: int, after: np.ndarray) -> list[tuple[str, ...]]:
    """The first `wanted` chains that the deals with seed `number` give from condition `number`."""
    random = np.random.RandomState(number)
    kinds = np.unique(KINDS, return_inverse=True)[1]
    chains: list[tuple[str, ...]] = []
    cards = np.empty((DEALS_AT_ONCE, len(TASKS)), np.int64)
    while len(chains) < wanted:
        cards[:] = np.arange(len(TASKS))
        for row in cards:  # the legacy generator's choice without replacement is the head of such a shuffle
            random.shuffle(row)
        deals = cards[:, :LENGTH]
        condition = np.full(len(deals), number)
        for step in range(LENGTH):
            condition = after[condition, deals[:, step]]
            deals, condition = deals[condition >= 0], condition[condition >= 0]
        for deal in deals:
            if len(set(kinds[deal])) == LENGTH:
                chains.append(tuple(TASKS[task] for task in deal))
    return chains[:wanted]


def compute_sequences(count: int = COUNT) -> tuple[Sequence, ...]:
    """The protocol's `count` chains, from its rules."""
    conditions = published_conditions()
    after = _condition_graph()
    wanted = [len(part) for part in np.array_split(range(count), len(conditions))]
    chains = [
        Sequence(condition, chain)
        for number, condition in enumerate(conditions)
        for chain in _chains_from(number, wanted[number], after)
    ]
    order = np.arange(count)
    np.random.RandomState(0).shuffle(order)
    return tuple(chains[index] for index in order)


def canonical_json(sequences: tuple[Sequence, ...]) -> str:
    """The text whose SHA-256 identifies the chains."""
    return json.dumps([[sequence.condition, list(sequence.tasks)] for sequence in sequences], sort_keys=True)


def _sha256(sequences: tuple[Sequence, ...]) -> str:
    return hashlib.sha256(canonical_json(sequences).encode()).hexdigest()


def published_sequences() -> tuple[Sequence, ...]:
    """The 1,000 chains of the evaluation, in its order; computed once a machine (some seconds), then read.

    Raises:
        RuntimeError: they come out otherwise than published, which only another generator of random numbers can cause.
    """
    kept = cache_folder() / f"calvin-sequences-{SHA256[:12]}.json"
    if kept.is_file():
        sequences = _read(kept)
        if sequences is not None:
            return sequences
    sequences = compute_sequences()
    if _sha256(sequences) != SHA256:
        raise RuntimeError(f"NumPy {np.__version__} does not deal CALVIN's published sequences: use another version")
    write_text(kept, canonical_json(sequences))
    return sequences


def _read(path: Path) -> tuple[Sequence, ...] | None:
    """The chains kept at `path`; None when they are not the published ones, whatever happened to the file."""
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != SHA256:
        return None
    return tuple(Sequence({key: condition[key] for key in KEYS}, tuple(tasks)) for condition, tasks in json.loads(text))
