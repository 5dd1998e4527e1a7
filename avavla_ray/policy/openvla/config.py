"""Sizes of OpenVLA and OpenVLA-OFT, and the presets. Imports without torch.

Letters: B batch of decisions, V images, H and W pixels, N visual tokens, L text tokens, C chunk length, A action
dimension, M = C*A action tokens, P proprioception, D width of the language model, S length of the whole sequence.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from avavla_ray.errors import InputError, check_known


@dataclass(frozen=True)
class TowerConfig:
    """One vision transformer.

    Attributes:
        layers: blocks that the checkpoint holds. The last one is never run: the features are those of the block
            before it, without the final norm.
        registers: DINOv2's register tokens, which leave with its class token; SigLIP has neither.
        mean, std: of the tower's image normalisation, for RGB in [0, 1].
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    registers: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class LanguageConfig:
    """Llama.

    Attributes:
        vocabulary: rows of the embedding, with the padding rows. padding_rows: those beyond the tokenizer's own, so
            that the action tokens are the last ones below vocabulary - padding_rows.
        norm_eps: 1e-6 is what the published config.json files come to, since they name no rms_norm_eps.
        bos, stop, padding: token ids. empty: the token that Llama's tokenizer makes of a lone space; training
            sequences have it between the prompt and the actions.
    """

    width: int = 4096
    layers: int = 32
    heads: int = 32
    key_value_heads: int = 32
    mlp_width: int = 11008
    vocabulary: int = 32064
    padding_rows: int = 64
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_positions: int = 2048
    bos: int = 1
    stop: int = 2
    padding: int = 32000
    empty: int = 29871


@dataclass(frozen=True)
class OpenVlaConfig:
    """The whole model.

    Attributes:
        image_size, patch_size: pixels. images: V. crop: share of the image's area that the centre crop keeps.
        bins: action tokens of the vocabulary, its last ones.
        chunk: C; 1 for OpenVLA. action_dim: A. proprio_dim: P, 0 without a proprioception token.
        parallel: bidirectional attention and all M action tokens in one pass (OFT), instead of one token at a time.
        head_blocks: residual blocks of the L1 head; 0 reads the actions off the vocabulary instead.
    """

    preset: str = "openvla_7b"
    dino: TowerConfig = field(
        # The published preprocessor rounded DINOv2's statistics to bfloat16.
        default_factory=lambda: TowerConfig(
            1024, 24, 16, 4096, 4, (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)
        )
    )
    siglip: TowerConfig = field(
        default_factory=lambda: TowerConfig(1152, 27, 16, 4304, 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    )
    language: LanguageConfig = field(default_factory=LanguageConfig)
    image_size: int = 224
    patch_size: int = 14
    images: int = 1
    crop: float = 0.9
    bins: int = 256
    chunk: int = 1
    action_dim: int = 7
    proprio_dim: int = 0
    parallel: bool = False
    head_blocks: int = 0

    # The names that every backbone's configuration has (policy/config.py).

    @property
    def width(self) -> int:
        """D."""
        return self.language.width

    @property
    def layers(self) -> int:
        """Of the language model."""
        return self.language.layers

    @property
    def num_cameras(self) -> int:
        """V."""
        return self.images

    @property
    def camera_size(self) -> int:
        """Pixels that a simulator should render: OpenVLA's data are 256 wide, and resized to 224."""
        return round(self.image_size * 256 / 224)

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def visual_tokens(self) -> int:
        """N, of all images together."""
        return self.images * self.grid**2

    @property
    def action_tokens(self) -> int:
        """M."""
        return self.chunk * self.action_dim

    @property
    def words(self) -> int:
        """Token ids of the tokenizer, without the padding rows."""
        return self.language.vocabulary - self.language.padding_rows

    @property
    def max_text_tokens(self) -> int:
        """Longest text that the language model's positions leave room for, without the leading BOS."""
        taken = 1 + self.visual_tokens + (self.proprio_dim > 0) + self.action_tokens + 1
        return self.language.max_positions - taken


def _oft(config: OpenVlaConfig, name: str) -> OpenVlaConfig:
    return dataclasses.replace(
        config, preset=name, images=2, chunk=8, proprio_dim=8, parallel=True, head_blocks=2
    )  # fmt: skip


def preset(name: str) -> OpenVlaConfig:
    """The named preset; the `tiny` ones have the same parts at sizes for tests.

    Raises:
        InputError: no such preset.
    """
    full = OpenVlaConfig()
    tiny = dataclasses.replace(
        full,
        preset="openvla_tiny",
        dino=dataclasses.replace(full.dino, width=64, layers=3, mlp_width=256),
        siglip=dataclasses.replace(full.siglip, width=64, layers=3, mlp_width=239),
        language=LanguageConfig(
            width=64, layers=2, heads=4, key_value_heads=4, mlp_width=96, vocabulary=704, max_positions=256,
            padding=640, empty=300,
        ),
        image_size=56,
    )  # fmt: skip
    presets = {
        "openvla_7b": full,
        "openvla_oft_7b": _oft(full, "openvla_oft_7b"),
        "openvla_tiny": tiny,
        "openvla_oft_tiny": _oft(tiny, "openvla_oft_tiny"),
    }
    check_known("preset", name, presets)
    return presets[name]


def check_config(config: OpenVlaConfig) -> None:
    """Refuse a configuration that no module can be built from.

    Raises:
        InputError: widths that their heads do not divide, sizes below what the forward pass needs, a vocabulary too
            small for its action tokens.
    """
    language = config.language
    for kind, value, divisor in (
        ("dino.width", config.dino.width, config.dino.heads),
        ("dino.mlp_width", config.dino.mlp_width, config.dino.width),
        ("siglip.width", config.siglip.width, config.siglip.heads),
        ("language.width", language.width, 2 * language.heads),
        ("language.heads", language.heads, language.key_value_heads),
        ("image_size", config.image_size, config.patch_size),
    ):
        if value < 1 or divisor < 1 or value % divisor:
            raise InputError(f"{kind} {value} is not a positive multiple of {divisor}")
    for kind, value, least in (
        ("dino.layers", config.dino.layers, 2),
        ("siglip.layers", config.siglip.layers, 2),
        ("language.layers", language.layers, 2),
        ("images", config.images, 1),
        ("chunk", config.chunk, 1),
        ("action_dim", config.action_dim, 1),
        ("bins", config.bins, 2),
        ("max_text_tokens", config.max_text_tokens, 1),
    ):
        if value < least:
            raise InputError(f"{kind} {value} is below {least}")
    if config.words <= config.bins or max(language.bos, language.stop, language.padding, language.empty) >= (
        language.vocabulary
    ):
        raise InputError(f"language.vocabulary {language.vocabulary} has no room for its special and action tokens")
    if not 0.0 < config.crop <= 1.0:
        raise InputError(f"crop {config.crop} is outside (0, 1]: give the share of the area that is kept")
    if not config.parallel and (config.chunk != 1 or config.head_blocks or config.proprio_dim):
        raise InputError("chunks, an L1 head and proprioception need parallel decoding: set parallel")
