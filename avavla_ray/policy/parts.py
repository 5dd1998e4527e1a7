"""The parts of a policy: the model under it, and which parameters belong to what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from avavla_ray.errors import InputError
from avavla_ray.policy.backbone import SmallBackbone
from avavla_ray.policy.config import BackboneConfig, PolicyConfig

if TYPE_CHECKING:
    from avavla_ray.policy.policy import AvaVlaPolicy


def make_backbone(config: PolicyConfig) -> nn.Module:
    """The model under the policy, with fresh weights; build it under `torch.device("meta")` to allocate nothing."""
    if isinstance(config.backbone, BackboneConfig):
        return SmallBackbone(config.backbone, config.vocabulary, config.proprio_dim, config.action_dim)
    # transformers takes a second to import, which `small` need not wait for.
    from avavla_ray.policy.openvla.backbone import OpenVlaBackbone
    from avavla_ray.policy.openvla.model import OpenVla

    backbone = OpenVlaBackbone(OpenVla(config.backbone))
    if config.lora is not None:
        from avavla_ray.policy.lora import add_lora

        add_lora(backbone, config.lora)
    return backbone


def parameter_groups(policy: AvaVlaPolicy) -> dict[str, list[nn.Parameter]]:
    """Every parameter once, by the part it belongs to; a part that is switched off has none.

    Under LoRA "backbone" are the adapters and what else of the backbone learns, and "frozen" the rest of it.
    """
    loop = policy.loop
    parts: dict[str, tuple[nn.Module | None, ...]] = {
        "attention": (policy.attention,),
        "action": (policy.action_tokens, policy.conditioning, policy.seam.head),
        "encoder": (policy.encoder,),
        "reasoner": (loop and loop.update_policy,),
        "transition": (loop and loop.transition,),
        "gate": (loop and loop.exit_gate,),
        "value": (policy.value_head,),
        "noise": (policy.action_noise,),
    }
    groups = {
        name: [parameter for module in modules if module is not None for parameter in module.parameters()]
        for name, modules in parts.items()
    }
    frozen: list[nn.Parameter] = []
    if policy.config.lora is not None:
        from avavla_ray.policy.lora import frozen_parameters

        frozen = frozen_parameters(policy.backbone)
    elsewhere = {id(parameter) for parameter in (*groups["action"], *frozen)}
    backbone = [parameter for parameter in policy.backbone.parameters() if id(parameter) not in elsewhere]
    return {"backbone": backbone, "frozen": frozen, **groups}


def check_unmerged(policy: AvaVlaPolicy, doing: str) -> None:
    """Refuse what would take merged weights for the base's, and the adapters on top of them.

    Args:
        doing: ends the message, for instance "saving".

    Raises:
        InputError: LoRA adapters are merged into the base weights.
    """
    if policy.config.lora is not None:
        from avavla_ray.policy.lora import is_merged  # knows OpenVLA, which takes seconds to import

        if is_merged(policy):
            raise InputError(
                f"the policy's adapters are merged into its weights for rollouts: unmerge() before {doing}"
            )
