"""What lies under AVA and the latent loop: eyes, words, the transformer that mixes them with the action tokens, and the
head that reads actions off those.

`Backbone` is the seam. `SmallBackbone` is the one of the presets `small` and `tiny`; openvla/backbone.py has the other.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avavla_ray.policy.action_head import ChunkHead
from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.tokenizer import PADDING, vocabulary_size
from avavla_ray.policy.transformer import Transformer
from avavla_ray.policy.vision import VisionEncoder, VisualFeatures


class Reading(NamedTuple):
    """Text tokens (B, L', D), which of them are no padding (B, L') bool, and their mean embedding (B, D)."""

    tokens: Tensor
    present: Tensor
    mean: Tensor


class Backbone(Protocol):
    """What the policy asks of the model under it.

    Attributes:
        pooled_width: F, of one camera's pooled features. head: reads actions off hidden states; None where the
            vocabulary does.
    """

    pooled_width: int

    @property
    def head(self) -> nn.Module | None: ...

    def see(self, images: Tensor, words: Tensor) -> VisualFeatures:
        """(B, V, H, W, 3) uint8, mean text embedding (B, D) -> visual tokens and pooled features."""
        ...

    def read(self, text: Tensor) -> Reading:
        """(B, L) token ids -> embeddings of L' <= L tokens."""
        ...

    def feel(self, proprio: Tensor) -> Tensor | None:
        """(B, P) normalised -> (B, 1, D), or None where there is no token for it."""
        ...

    def mix(
        self,
        visual: Tensor,
        bias: Tensor | None,
        text: Tensor,
        present: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        index: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run [visual, text, proprio, action] tokens through all layers.

        Args:
            visual: (B, N', D). bias: (B, N') added to every query's logits for a visual token, log w; None adds none.
            text: (B, L', D). present: (B, L') bool. proprio: (B, 1, D). actions: (B, M, D).
            index: (B, N') places of the visual tokens where some were pruned, or None.

        Returns:
            hidden (B, M, D): action tokens after the last-but-one layer; output (B, M, D): after the last, normalised.
        """
        ...

    def read_actions(self, output: Tensor) -> Tensor:
        """(B, M, D) -> chunk (B, C, A) in the normalised action space."""
        ...

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute in float32 or bfloat16 from now on."""
        ...


class SmallBackbone(nn.Module):
    """A convolutional stem, one embedding a word, and a bidirectional transformer, trained from scratch."""

    def __init__(self, config: BackboneConfig, vocabulary: tuple[str, ...], proprio_dim: int, action_dim: int) -> None:
        super().__init__()
        D = config.width
        self.pooled_width = VisionEncoder.pooled_width(config)
        self.vision = VisionEncoder(config)
        self.words = nn.Embedding(vocabulary_size(vocabulary), D, padding_idx=PADDING)
        self.word_positions = nn.Parameter(0.02 * torch.randn(config.max_text_tokens, D))
        self.proprio = nn.Sequential(nn.Linear(proprio_dim, D), nn.GELU(approximate="tanh"), nn.Linear(D, D))
        self.transformer = Transformer(D, config.layers, config.heads, config.mlp_ratio, config.dropout)
        self.head = ChunkHead(D, action_dim)

    def see(self, images: Tensor, words: Tensor) -> VisualFeatures:
        """(B, V, H, W, 3) uint8, mean text embedding (B, D) -> visual tokens and pooled features."""
        return self.vision(images, words)

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
        return self.proprio(proprio.to(self.word_positions.dtype))[:, None]

    def mix(
        self,
        visual: Tensor,
        bias: Tensor | None,
        text: Tensor,
        present: Tensor,
        proprio: Tensor,
        actions: Tensor,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `Backbone.mix`, every token attending to every other. Visual tokens bring their positions with them, so
        that `index` changes nothing."""
        after = 1 + actions.shape[1]
        key_bias = None if bias is None else F.pad(bias, (0, text.shape[1] + after))
        if not bool(present.all()):
            masked = torch.zeros_like(present, dtype=visual.dtype).masked_fill(~present, -torch.inf)
            silence = F.pad(masked, (visual.shape[1], after))
            key_bias = silence if key_bias is None else key_bias + silence
        sequence = torch.cat([visual, text, proprio, actions], dim=1)
        return self.transformer(sequence, key_bias, last=actions.shape[1])

    def read_actions(self, output: Tensor) -> Tensor:
        """(B, C, D) -> chunk (B, C, A)."""
        return self.head(output)

    def set_precision(self, dtype: torch.dtype) -> None:
        """See `Backbone.set_precision`."""
        self.to(dtype)
