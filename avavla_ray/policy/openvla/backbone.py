"""OpenVLA under AVA and the latent loop: the seam of `policy/backbone.py`, over an `OpenVla` model."""

from __future__ import annotations

from torch import Tensor, nn

from avavla_ray.errors import InputError
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
        config = model.config
        if not config.parallel:
            raise InputError("AVA and the latent loop need all action tokens in one pass: take an OpenVLA-OFT model")
        self.model = model
        self.pooled_width = config.dino.width + config.siglip.width

    def see(self, images: Tensor) -> VisualFeatures:
        """(B, V, H, W, 3) uint8 -> projected visual tokens, and each image's mean feature before the projector."""
        features = self.model.vision(images)
        pooled = features.unflatten(1, (images.shape[1], -1)).mean(dim=2)
        return VisualFeatures(self.model.projector(features), pooled)

    def read(self, text: Tensor) -> Reading:
        """(B, L) prompt ids, padded on the left, as `PromptTokenizer.batch` makes them."""
        present = text.ne(self.model.config.language.padding)
        tokens = self.model.embed_text(text)
        mean = (tokens * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp_min(1)
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
        """As `SmallBackbone.mix`, in OpenVLA's order, with BOS in front and the stop token behind.

        The returned states are those that OpenVLA reads actions from: of the position before each action token.

        Args:
            index: (B, N') places of the visual tokens where some were pruned: they keep their positions.
        """
        padded = None if bool(present.all()) else present
        decoded = self.model.decode(
            visual, text, padded, proprio=proprio, actions=actions, visual_bias=bias, visual_index=index
        )
        return decoded.before, decoded.last
