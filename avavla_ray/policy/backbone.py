"""What lies under AVA and the latent loop: eyes, words, and the transformer that mixes them with the action tokens.

`SmallBackbone` is the one of the presets `small` and `tiny`. Any other has the same four methods and `pooled_width`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.tokenizer import PADDING, vocabulary_size
from avavla_ray.policy.transformer import Transformer
from avavla_ray.policy.vision import VisionEncoder, VisualFeatures


class Reading(NamedTuple):
    """Text tokens (B, L', D), which of them are no padding (B, L') bool, and their mean embedding (B, D)."""

    tokens: Tensor
    present: Tensor
    mean: Tensor


class SmallBackbone(nn.Module):
    """A convolutional stem, one embedding a word, and a bidirectional transformer, trained from scratch.

    Attributes:
        pooled_width: F, of one camera's pooled features.
    """

    def __init__(self, config: BackboneConfig, vocabulary: tuple[str, ...], proprio_dim: int) -> None:
        super().__init__()
        D = config.width
        self.pooled_width = VisionEncoder.pooled_width(config)
        self.vision = VisionEncoder(config)
        self.words = nn.Embedding(vocabulary_size(vocabulary), D, padding_idx=PADDING)
        self.word_positions = nn.Parameter(0.02 * torch.randn(config.max_text_tokens, D))
        self.proprio = nn.Sequential(nn.Linear(proprio_dim, D), nn.GELU(approximate="tanh"), nn.Linear(D, D))
        self.transformer = Transformer(D, config.layers, config.heads, config.mlp_ratio, config.dropout)

    def see(self, images: Tensor) -> VisualFeatures:
        """(B, V, H, W, 3) uint8 -> visual tokens and pooled features."""
        return self.vision(images)

    def read(self, text: Tensor) -> Reading:
        """(B, L) token ids -> embeddings of L' <= L tokens."""
        # Columns that are padding in every row cost attention and say nothing.
        present = text.ne(PADDING)
        ids = text[:, : max(int(present.sum(1).max()), 1)]
        present = present[:, : ids.shape[1]]
        words = self.words(ids) + self.word_positions[: ids.shape[1]]
        mean = (words * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        return Reading(words, present, mean)

    def feel(self, proprio: Tensor) -> Tensor:
        """(B, P) normalised -> (B, 1, D)."""
        return self.proprio(proprio)[:, None]

    def mix(
        self, visual: Tensor, bias: Tensor | None, text: Tensor, present: Tensor, proprio: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run [visual, text, proprio, action] tokens through the transformer, every token attending to every other.

        Args:
            visual: (B, N', D). bias: (B, N') added to every query's logits for a visual token, log w; None adds none.
            text: (B, L', D). present: (B, L') bool. proprio: (B, 1, D). actions: (B, M, D).

        Returns:
            hidden (B, M, D): action tokens after the last-but-one layer; output (B, M, D): after the last, normalised.
        """
        after = 1 + actions.shape[1]
        key_bias = None if bias is None else F.pad(bias, (0, text.shape[1] + after))
        if not bool(present.all()):
            masked = torch.zeros_like(present, dtype=visual.dtype).masked_fill(~present, -torch.inf)
            silence = F.pad(masked, (visual.shape[1], after))
            key_bias = silence if key_bias is None else key_bias + silence
        sequence = torch.cat([visual, text, proprio, actions], dim=1)
        return self.transformer(sequence, key_bias, last=actions.shape[1])
