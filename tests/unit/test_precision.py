"""The backbone in bfloat16, everything else in float32; activations kept or recomputed."""

import pytest
import torch
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.policy.config import LoraConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs
from tests.support.openvla_policies import openvla_inputs, openvla_policy
from tests.support.policies import random_inputs, stirred_policy, tiny

LORA = LoraConfig(rank=4)


def _case(name: str) -> tuple[AvaVlaPolicy, PolicyInputs]:
    if name == "small":
        policy = stirred_policy(tiny()).eval()
        return policy, random_inputs(policy.config, 3)
    policy = openvla_policy(LORA if name == "lora" else None)
    return policy, openvla_inputs(policy.config, 3)


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, tuple) else []


@torch.no_grad()
@pytest.mark.parametrize("name", ["small", "openvla", "lora"])
def test_bfloat16_moves_the_chunk_a_little_and_nothing_outside_the_backbone(name: str) -> None:
    policy, inputs = _case(name)
    belief = policy.initial_belief(3)
    exact = policy.decide(inputs, belief, depth=3)
    policy.set_precision("bfloat16")
    for parameter_name, parameter in policy.named_parameters():
        rounded = parameter_name.startswith("backbone.") and "lora_" not in parameter_name
        assert parameter.dtype == (torch.bfloat16 if rounded else torch.float32), parameter_name
    rough = policy.decide(inputs, belief, depth=3)
    floating = [tensor for tensor in _tensors(tuple(rough)) if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.float32}
    moved = (rough.chunk - exact.chunk).abs().max()
    assert 0 < moved < 0.05 * exact.chunk.abs().max()
    second = policy.decide(inputs, rough.belief, depth=3)
    assert second.chunk.isfinite().all()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="float16"):
        openvla_policy().set_precision("float16")


@pytest.mark.parametrize("name", ["small", "openvla", "lora"])
@pytest.mark.parametrize("latent_steps", [0, 2])
def test_a_cloning_step_in_bfloat16_has_finite_gradients_near_the_exact_ones(name: str, latent_steps: int) -> None:
    policy, inputs = _case(name)
    exact = _gradients(policy, inputs, latent_steps)
    policy.set_precision("bfloat16")
    rough = _gradients(policy, inputs, latent_steps)
    assert exact.keys() == rough.keys()
    assert all(gradient.isfinite().all() for gradient in rough.values())
    a, b = (torch.cat([part.float().flatten() for part in gradients.values()]) for gradients in (exact, rough))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99


@pytest.mark.parametrize("name", ["openvla", "lora"])
def test_recomputing_activations_gives_equal_gradients_and_keeps_less(name: str) -> None:
    policy, inputs = _case(name)
    policy.train()
    with _Kept() as everything:
        exact = _gradients(policy, inputs, 1)
    policy.backbone.model.set_gradient_checkpointing(True)
    with _Kept() as little:
        recomputed = _gradients(policy, inputs, 1)
    assert exact.keys() == recomputed.keys()
    for parameter_name, gradient in exact.items():
        torch.testing.assert_close(recomputed[parameter_name], gradient, rtol=1e-6, atol=1e-6)
    assert little.bytes < 0.5 * everything.bytes
    policy.backbone.model.set_gradient_checkpointing(False)
    with _Kept() as again:
        _gradients(policy, inputs, 1)
    assert again.bytes == everything.bytes


def _gradients(policy: AvaVlaPolicy, inputs: PolicyInputs, latent_steps: int) -> dict[str, Tensor]:
    policy.zero_grad()
    belief = Belief(*(torch.ones_like(part) for part in policy.initial_belief(len(inputs.images))))
    chunk, _, states = policy.clone(inputs, belief, latent_steps=latent_steps)
    (chunk.square().mean() + states.square().mean()).backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


class _Kept:
    """Bytes that autograd keeps for the backward pass outside parameters, each storage once."""

    def __enter__(self) -> "_Kept":
        self.bytes = 0
        self._seen: list[torch.UntypedStorage] = []
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not tensor.is_leaf and not any(storage.data_ptr() == other.data_ptr() for other in self._seen):
            self._seen.append(storage)  # held, so that its address is not given away meanwhile
            self.bytes += storage.nbytes()
        return tensor
