from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.config import LoraConfig
from avavla_ray.policy.lora import merge, unmerge
from avavla_ray.policy.weights import flatten, load_flat
from tests.support.openvla_policies import openvla_policy
from tests.support.policies import stirred_policy, tiny


def test_round_trip_is_exact_and_from_a_read_only_array():
    source, target = stirred_policy(tiny(), seed=1), stirred_policy(tiny(), seed=2)
    buffer = flatten(source)
    buffer.array.flags.writeable = False  # as an object store hands it out
    load_flat(target, buffer)
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_the_buffer_is_one_flat_array_of_its_own():
    policy = stirred_policy(tiny())
    buffer = flatten(policy)
    assert buffer.array.dtype == np.float32
    assert buffer.array.shape == (sum(parameter.numel() for parameter in policy.parameters()),)
    before = buffer.array.copy()
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    np.testing.assert_array_equal(buffer.array, before)


def test_loading_keeps_no_hold_on_the_buffer():
    policy, buffer = stirred_policy(tiny(), seed=1), flatten(stirred_policy(tiny(), seed=2))
    load_flat(policy, buffer)
    expected = flatten(policy).array
    buffer.array[:] = 0
    np.testing.assert_array_equal(flatten(policy).array, expected)


def test_weights_of_another_policy_are_refused():
    policy, buffer = stirred_policy(tiny()), flatten(stirred_policy(tiny(latent__value_hidden=8)))
    with pytest.raises(InputError, match="weights of another policy"):
        load_flat(policy, buffer)
    short = dataclasses.replace(flatten(policy), array=flatten(policy).array[:-1])
    with pytest.raises(InputError, match="instead of"):
        load_flat(policy, short)


def test_weights_with_merged_adapters_are_neither_copied_nor_overwritten():
    policy = openvla_policy(LoraConfig(rank=4))
    buffer = flatten(policy)
    merge(policy)
    for act in (lambda: flatten(policy), lambda: load_flat(policy, buffer)):
        with pytest.raises(InputError, match=r"adapters are merged .* unmerge\(\)"):
            act()
    unmerge(policy)
    np.testing.assert_array_equal(flatten(policy).array, buffer.array)
    load_flat(policy, buffer)
