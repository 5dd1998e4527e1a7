"""OpenVLA under AVA and the latent loop: the seam of `policy/backbone.py`, over an `OpenVla` model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avavla_ray.policy.backbone import Reading
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.vision import VisualFeatures


class OpenVlaBackbone(nn.Module):
    """What `SmallBackbone` does, by a published model's weights. One action token a dimension: M = C * A.

    Attributes:
        pooled_width: F, of one image's pooled features: the two towers' widths together.
    """

    def __init__(self, model: OpenVla) -> None:
        super().__init__()
        self.model = model
        self.pooled_width = model.config.dino.width + model.config.siglip.width

    @property
    def head(self) -> nn.Module | None:
        """The L1 head; None where actions are words."""
        return self.model.head

    def see(self, images: Tensor, words: Tensor | None = None) -> VisualFeatures:
        """(B, V, H, W, 3) uint8 -> projected visual tokens, and each image's mean feature before the projector.

        The towers see the same whatever the words.
        """
        features = self.model.vision(images)
        pooled = features.unflatten(1, (images.shape[1], -1)).mean(dim=2)
        return VisualFeatures(self.model.projector(features), pooled)

    def read(self, text: Tensor) -> Reading:
        """(B, L) prompt ids, padded on the left as `PromptTokenizer` makes them."""
        present = text.ne(self.model.config.language.padding)
        # Columns that are padding in every row cost attention and say nothing.
        longest = int(present.sum(dim=1).max())
        text, present = text[:, text.shape[1] - longest :], present[:, present.shape[1] - longest :]
        tokens = self.model.embed_text(text)
        mean = (tokens.float() * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        return Reading(tokens, present, mean)

    def feel(self, proprio: Tensor) -> Tensor | None:
        """(B, P) normalised -> (B, 1, D), or None where the model has no proprioception token."""
        return self.model.embed_proprio(proprio)

    def mix(
        self,
        visual: Tensor,
        bias: Tensor | None,
        text: Tensor,
        present: Tensor,
        proprio: Tensor | None,
        actions: Tensor,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `Backbone.mix`, in OpenVLA's order, with BOS in front.

        The states are those that OpenVLA reads actions from: of the position before each action token. A model that
        decodes token by token decodes here, adding `actions` to the embeddings of what it has decoded.
        """
        padded = None if bool(present.all()) else present
        if self.model.config.parallel:
            decoded = self.model.decode(
                visual, text, padded, proprio=proprio, actions=actions, visual_bias=bias, visual_index=index
            )
            return decoded.before, decoded.last
        generated = self.model.generate(visual, text, padded, visual_bias=bias, visual_index=index, actions=actions)
        return generated.before, generated.last

    def read_actions(self, output: Tensor) -> Tensor:
        """(B, M, D) -> chunk (B, C, A); the centres of the likeliest bins where actions are words."""
        return self.model.read_actions(output)

    def set_precision(self, dtype: torch.dtype) -> None:
        """See `Backbone.set_precision`. Buffers stay, since rotary frequencies must not be rounded, and so do adapters,
        which are float32 (policy/lora.py)."""
        for name, parameter in self.named_parameters():
            if ".lora_" not in name:
                parameter.data = parameter.data.to(dtype)
