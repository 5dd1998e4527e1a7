"""Which of the parts that this project adds to OpenVLA change what it decides."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from avavla_ray.policy.config import PolicyConfig

# Each part's last layer starts at zero, see policy/action_head.py and policy/attention.py.
_LAST = {
    "attention": "attention.head", "action_tokens": "action_tokens.initialise.3", "conditioning": "conditioning.mlp.2",
}  # fmt: skip


def changing_parts(config: PolicyConfig, read: Callable[[str], Tensor]) -> list[str]:
    """Names of the parts without which the same backbone would decide otherwise: those that are neutral no more.

    Encoder and latent loop reach the action through `conditioning` alone, and the value head not at all.

    Args:
        read: a tensor of the policy by its name.
    """
    attention = config.attention
    present = {
        "attention": attention.enabled,
        "action_tokens": config.state_initialisation,
        "conditioning": config.latent.conditioning,
    }
    # What an untrained AVA gives every visual token.
    weight = attention.bias + (attention.positive + attention.negative) / 2
    changing = {"attention"} if attention.enabled and (attention.keep_ratio < 1 or abs(weight - 1) > 1e-6) else set()
    for part, last in _LAST.items():
        if present[part] and any(bool(read(f"{last}.{kind}").any()) for kind in ("weight", "bias")):
            changing.add(part)
    return sorted(changing)
