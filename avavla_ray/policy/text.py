"""The tokenizer that belongs to a policy."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.policy.config import BackboneConfig, PolicyConfig
from avavla_ray.policy.tokenizer import WordTokenizer


class InstructionTokenizer(Protocol):
    """Instructions to token ids (L,) int64, padded to the backbone's `max_text_tokens`."""

    def encode(self, instruction: str, /) -> Tensor:
        """Raises InputError for an instruction that is empty or too long."""
        ...


def make_tokenizer(config: PolicyConfig) -> InstructionTokenizer:
    """Words for the small presets, OpenVLA's prompt for its backbone.

    Raises:
        InputError: an OpenVLA configuration without its tokenizer's text.
    """
    if isinstance(config.backbone, BackboneConfig):
        return WordTokenizer(config.vocabulary, config.backbone.max_text_tokens)
    if not config.tokenizer:
        raise InputError("this policy has no tokenizer: load it from a checkpoint, or import one with import_openvla")
    from avavla_ray.policy.openvla.prompt import PromptTokenizer

    return PromptTokenizer(config.tokenizer, config.backbone)
