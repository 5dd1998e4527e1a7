"""Versioned weights: newer ones replace, older ones are ignored."""

from __future__ import annotations

import pytest

from actors.weights import WeightHandle, WeightStore, pull_if_newer
from avavla_ray.policy.weights import flatten
from tests.support.policies import stirred_policy, tiny


def test_only_newer_versions_are_published() -> None:
    store = WeightStore()
    with pytest.raises(RuntimeError, match="no weights"):
        _ = store.newest
    assert store.publish(3, "three")
    assert not store.publish(3, "again")
    assert not store.publish(2, "two")
    assert store.newest == WeightHandle(3, ("three",))
    assert store.publish(7, "seven")
    assert store.version == 7


def test_weights_are_pulled_only_when_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = stirred_policy(tiny(), seed=0), stirred_policy(tiny(), seed=1)
    kept, fetched = flatten(target).array.copy(), []

    def get(reference: str) -> object:
        fetched.append(reference)
        return flatten(source)

    monkeypatch.setattr("actors.weights.ray.get", get)
    handle = WeightHandle(4, ("weights of version 4",))
    for version in (4, 9):
        assert pull_if_newer(target, version, handle) == version
    assert fetched == []
    assert (flatten(target).array == kept).all()
    assert pull_if_newer(target, 3, handle) == 4
    assert fetched == ["weights of version 4"]
    assert (flatten(target).array == flatten(source).array).all()
