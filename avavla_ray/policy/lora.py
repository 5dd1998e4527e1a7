"""Low-rank adapters (LoRA, arXiv 2106.09685) on an OpenVLA backbone, through peft.

    y = W x + (alpha / rank) B A x        W frozen, A (rank, in) and B (out, rank) learn, B starts at zero

Adapters stay float32 over a bfloat16 backbone: they are the master weights that an optimizer moves, at 2 % of the
model's size, and an update of 1e-4 would vanish in bfloat16's eight bits.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avavla_ray.errors import InputError
from avavla_ray.policy.config import check_config
from avavla_ray.policy.openvla.backbone import OpenVlaBackbone

if TYPE_CHECKING:  # peft takes a while to import, and a policy without adapters does not need it
    from peft.tuners.lora import Linear as LoraLinear

    from avavla_ray.policy.config import LoraConfig
    from avavla_ray.policy.policy import AvaVlaPolicy


# The linear layers that `LoraConfig.targets` stands for, as a pattern over names in `OpenVla`.
TARGETS = {
    "language": r"language\.model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj",
    "projector": r"projector\.fc\d",
}
_ADAPTER = "default"
_ADAPTER_PARTS = ("lora_A", "lora_B")
# Parts of the backbone that OFT adds to the published model: small, and trained whole beside the adapters.
_WHOLE_PARTS = ("model.proprio", "model.head")
_KEPT = "weight_before_merge"


def add_lora(backbone: nn.Module, config: LoraConfig) -> None:
    """Put adapters into the backbone's linear layers and freeze what they adapt. Outputs do not change at first.

    The device is the base weights', `meta` included: whoever fills those fills the adapters as well. A target's
    parameter NAME.weight becomes NAME.base_layer.weight, NAME.lora_A.default.weight and NAME.lora_B.default.weight.

    Raises:
        InputError: not an OpenVLA backbone, or it has adapters already.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    if not isinstance(backbone, OpenVlaBackbone):
        raise InputError(f"lora: {type(backbone).__name__} is small enough to train whole, take an OpenVLA policy")
    if lora_parameters(backbone):
        raise InputError("lora: this policy has adapters already: merge them with fold() before adding others")
    pattern = "|".join(TARGETS[target] for target in config.targets)
    settings = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=pattern, bias="none"
    )  # fmt: skip
    inject_adapter_in_model(settings, backbone.model, _ADAPTER)
    # peft's own record of what it did; ours is PolicyConfig.lora.
    del backbone.model.peft_config
    for parameter in lora_parameters(backbone):
        parameter.data = parameter.data.float()
    for parameter in frozen_parameters(backbone):
        parameter.requires_grad_(False)


def lora_parameters(backbone: nn.Module) -> list[nn.Parameter]:
    """The adapters' A and B; none without LoRA."""
    return [parameter for name, parameter in backbone.named_parameters() if _is_adapter(name)]


def frozen_parameters(backbone: nn.Module) -> list[nn.Parameter]:
    """What LoRA leaves as it was: everything but the adapters, the proprioception projector and the L1 head. None
    without LoRA."""
    if not lora_parameters(backbone):
        return []
    return [
        parameter for name, parameter in backbone.named_parameters()
        if not _is_adapter(name) and not name.startswith(_WHOLE_PARTS)
    ]  # fmt: skip


def adapt(policy: AvaVlaPolicy, config: LoraConfig) -> None:
    """Add fresh adapters to a policy that has none, in place; its configuration says so afterwards.

    Raises:
        InputError: settings that no adapter can be built from, or as `add_lora`.
    """
    adapted = dataclasses.replace(policy.config, lora=config)
    check_config(adapted)
    add_lora(policy.backbone, config)
    policy.config = adapted


def is_merged(policy: nn.Module) -> bool:
    """Whether the base weights hold the adapters' part too."""
    return any(layer.merged for _, layer in _layers(policy))


@torch.no_grad()
def merge(policy: AvaVlaPolicy) -> None:
    """Add the adapters to the base weights in place, for rollouts without their cost; `unmerge` takes them out again.

    A copy of the adapted layers' weights is kept until then, since in bfloat16 subtracting does not bring them back.
    In between, weights must not be saved, published or loaded: `is_merged` tells.

    Raises:
        InputError: no adapters, or some hold NaN or infinity.
    """
    for _, layer in _checked(policy):
        if not layer.merged:
            layer.register_buffer(_KEPT, layer.get_base_layer().weight.detach().clone(), persistent=False)
            layer.merge()


@torch.no_grad()
def unmerge(policy: AvaVlaPolicy) -> None:
    """Undo `merge`: base weights are what they were, bit for bit. Nothing to do where nothing is merged."""
    for _, layer in _layers(policy):
        if layer.merged:
            layer.unmerge()
            layer.get_base_layer().weight.copy_(getattr(layer, _KEPT))
            delattr(layer, _KEPT)


@torch.no_grad()
def fold(policy: AvaVlaPolicy) -> AvaVlaPolicy:
    """Make the adapters part of the base weights for good, for export and fast inference: the same object, with plain
    parameter names and `config.lora` None. Beyond the model this needs memory for one layer's weight.

    Raises:
        InputError: no adapters, or some hold NaN or infinity.
    """
    for name, layer in _checked(policy):
        if not layer.merged:
            layer.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(policy.get_submodule(parent), leaf, layer.get_base_layer())
    policy.config = dataclasses.replace(policy.config, lora=None)
    return policy.requires_grad_(True)


def _is_adapter(name: str) -> bool:
    return any(part in _ADAPTER_PARTS for part in name.split("."))


def _layers(policy: nn.Module) -> list[tuple[str, LoraLinear]]:
    return [(name, module) for name, module in policy.named_modules() if hasattr(module, "lora_A")]  # type: ignore[misc]


def _checked(policy: nn.Module) -> list[tuple[str, LoraLinear]]:
    layers = _layers(policy)
    if not layers:
        raise InputError("this policy has no LoRA adapters to merge")
    for name, layer in layers:
        if not _finite(layer.lora_A[_ADAPTER].weight) or not _finite(layer.lora_B[_ADAPTER].weight):
            raise InputError(f"the adapter of {name} holds NaN or infinity: go back to an earlier checkpoint")
    return layers


def _finite(weight: Tensor) -> bool:
    return bool(weight.isfinite().all())
