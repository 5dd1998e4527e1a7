"""The evaluation's 1,000 chains: golden hash, the rules they keep, and the file that keeps them."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from avavla_ray.simulators.calvin import sequences as module
from avavla_ray.simulators.calvin.initial_states import published_conditions
from avavla_ray.simulators.calvin.rules import outcomes
from avavla_ray.simulators.calvin.sequences import (
    COUNT,
    SHA256,
    Sequence,
    canonical_json,
    compute_sequences,
    published_sequences,
)


@pytest.fixture(scope="module")
def computed() -> tuple[Sequence, ...]:
    return compute_sequences()


def test_the_rules_give_the_published_sequences(computed: tuple[Sequence, ...]) -> None:
    assert hashlib.sha256(canonical_json(computed).encode()).hexdigest() == SHA256


def test_every_task_of_a_chain_is_possible_after_the_ones_before(computed: tuple[Sequence, ...]) -> None:
    for sequence in computed:
        condition = sequence.condition
        for task in sequence.tasks:
            (condition,) = outcomes(task, condition)
        assert len(set(sequence.tasks)) == 5


def test_conditions_share_the_chains_evenly(computed: tuple[Sequence, ...]) -> None:
    counts = Counter(tuple(sequence.condition.values()) for sequence in computed)
    assert set(counts) == {tuple(condition.values()) for condition in published_conditions()}
    assert set(counts.values()) == {COUNT // 192, COUNT // 192 + 1}


def test_sequences_are_computed_once_and_then_read(
    computed: tuple[Sequence, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "compute_sequences", lambda: calls.append(1) or computed)
    assert published_sequences() == computed
    assert published_sequences() == computed
    assert len(calls) == 1


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff\xfe no text"])
def test_a_damaged_file_is_computed_again(
    damage: bytes, computed: tuple[Sequence, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "compute_sequences", lambda: computed)
    published_sequences()
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(damage)
    assert published_sequences() == computed
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == SHA256


def test_other_sequences_than_the_published_are_refused(
    computed: tuple[Sequence, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "compute_sequences", lambda: computed[::-1])
    with pytest.raises(RuntimeError, match="published sequences"):
        published_sequences()
    assert not list(tmp_path.iterdir())
