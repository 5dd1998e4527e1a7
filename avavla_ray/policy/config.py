"""Shapes and switches of the policy, and its presets. Imports without torch.

Letters used throughout the package: B batch of decisions, V cameras, N visual tokens, L text tokens, C chunk length,
A action dimension, M action tokens, P proprioception, D model width, Z latent width, U update-action width,
E width of the observation encoding psi, K latent steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from avavla_ray.errors import InputError, check_fraction, check_known
from avavla_ray.policy.gate_map import GateMap, check_gate_maps
from avavla_ray.policy.openvla import config as openvla
from avavla_ray.policy.openvla.config import OpenVlaConfig

GRIPPERS = ("signed", "open_fraction")


@dataclass(frozen=True)
class BackboneConfig:
    """Vision encoder and transformer of the presets that are trained from scratch.

    Attributes:
        width: D. layers, heads: of the transformer. mlp_ratio: hidden width of its feed-forward over D.
        image_size: the policy resizes images to this, pixels.
        stem_channels: output channels of the convolutional stem's stages; the first has stride 4, the others 2.
        pool: cells of the last feature map along a side of a visual token, which is their mean; keypoints are read off
            the whole map, whatever the tokens are.
        keypoints: spatial-softmax keypoints read off each camera's last feature map.
        fine_keypoints: they are read off the map before the last, whose cells are half as wide: for objects that are
            no wider than a cell of the last.
        keypoints_from_text: the instruction says what they look for; off in checkpoints of before it could.
        max_text_tokens: L; instructions are padded or refused beyond it.
        dropout: of the transformer's residual branches, training only.
        crop: share of the area at the centre that the policy sees, resized back; as its training's random crop kept.
    """

    width: int = 128
    layers: int = 3
    heads: int = 4
    mlp_ratio: float = 2.0
    image_size: int = 128
    stem_channels: tuple[int, ...] = (32, 64, 128)
    pool: int = 1
    keypoints: int = 16
    fine_keypoints: bool = False
    keypoints_from_text: bool = False
    num_cameras: int = 2
    max_text_tokens: int = 24
    dropout: float = 0.0
    crop: float = 1.0

    @property
    def camera_size(self) -> int:
        """Pixels that a simulator should render."""
        return self.image_size

    @property
    def grid(self) -> int:
        """Visual tokens along one side of an image."""
        return self.feature_grid // self.pool

    @property
    def feature_grid(self) -> int:
        """Cells of the last feature map along one side of an image."""
        return self.image_size // (4 * 2 ** (len(self.stem_channels) - 1))

    @property
    def keypoint_grid(self) -> int:
        """Cells along one side of an image of the map that keypoints are read off."""
        return self.feature_grid * (2 if self.fine_keypoints else 1)

    @property
    def visual_tokens(self) -> int:
        """N, of all cameras together."""
        return self.num_cameras * self.grid**2


@dataclass(frozen=True)
class AttentionConfig:
    """Active visual attention (arXiv 2511.18960, section 3).

    Attributes:
        enabled: off, every visual token weighs 1.
        width: of the module's own tokens.
        positive, negative, bias: weight = bias + p * positive + (1 - p) * negative.
        temperature: of the two-logit softmax at inference and at the end of the schedule.
        temperature_start: at the start of training; falls exponentially over `temperature_fraction` of it.
        sink_tokens: this many visual tokens keep a weight of at least 1.
        keep_ratio: share of visual tokens kept in the sequence at inference; 1 prunes nothing.
    """

    enabled: bool = True
    width: int = 64
    heads: int = 4
    positive: float = 1.9
    negative: float = 0.1
    bias: float = 0.0
    temperature: float = 0.1
    temperature_start: float = 1.0
    temperature_fraction: float = 0.8
    sink_tokens: int = 4
    keep_ratio: float = 1.0


@dataclass(frozen=True)
class LatentConfig:
    """Latent reasoning and early exit (arXiv 2606.15099, section 3).

    Attributes:
        enabled: off, z_0 conditions the action and no latent step is taken.
        conditioning: off, nothing of the latent reaches the action.
        early_exit: off, every decision takes max_steps.
        max_steps: K. width: Z. update_dim: U. encoding_width: E (psi).
        reasoner_width, reasoner_layers, reasoner_heads: transformer encoder of the update policy.
        transition_hidden: of the transition's GRU cell and MLPs. observation_tokens: keys of its cross-attention.
        gate_hidden, value_hidden: of the exit gate and the value MLP.
        exit_threshold: stop as soon as the gate's score exceeds it.
        action_scale: initial value of the learned scale on what z adds to the token embeddings.
        log_std_init: initial log standard deviation of the update action.
        gate_maps: post-calibration of the gate's logits: none, one for all latent steps, or one for each of 1..K-1.
    """

    enabled: bool = True
    conditioning: bool = True
    early_exit: bool = True
    max_steps: int = 5
    width: int = 128
    update_dim: int = 32
    encoding_width: int = 192
    reasoner_width: int = 128
    reasoner_layers: int = 2
    reasoner_heads: int = 4
    transition_hidden: int = 256
    transition_heads: int = 4
    observation_tokens: int = 4
    gate_hidden: int = 64
    value_hidden: int = 128
    exit_threshold: float = 0.55
    action_scale: float = 0.1
    log_std_init: float = 0.0
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    gate_maps: tuple[GateMap, ...] = ()


PAPER_THRESHOLDS = (0.30, 0.40, 0.50, 0.55, 0.65, 0.75, 0.85, 0.95, 1.00)  # arXiv 2606.15099, Table 5
# The papers' sizes (2511.18960 says only that the attention module is small).
PAPER_ATTENTION = AttentionConfig(width=256, heads=8)
PAPER_LATENT = LatentConfig(
    width=512, update_dim=64, encoding_width=768, reasoner_width=512, reasoner_layers=4, reasoner_heads=8,
    transition_hidden=1024, transition_heads=8, gate_hidden=256, value_hidden=512,
)  # fmt: skip
_TINY_LATENT = LatentConfig(
    width=16, update_dim=4, encoding_width=24, reasoner_width=16, reasoner_layers=1, reasoner_heads=2,
    transition_hidden=16, transition_heads=2, gate_hidden=8, value_hidden=16,
)  # fmt: skip


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on a frozen OpenVLA backbone (arXiv 2106.09685; sizes as OpenVLA-OFT).

    Attributes:
        rank, alpha: the adapter adds alpha / rank * B A x. dropout: on its input, training only.
        targets: "language" for the decoder layers' linear maps, "projector" for the visual projector's.
    """

    rank: int = 32
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("language", "projector")


@dataclass(frozen=True)
class PolicyConfig:
    """The whole policy. Saved in a checkpoint's config.json; two equal configs build equal modules.

    Attributes:
        preset: name it was made from, for records.
        chunk: C, actions per decision. action_dim: A. proprio_dim: P, 0 for a policy without proprioception.
        gripper: what the last action dimension means in the data's units: "signed" as the simulator takes it, in LIBERO
            -1 open and +1 closed, in CALVIN the other way round, or "open_fraction" 0 closed and 1 open, as OpenVLA's
            data sets have it.
        state_initialisation: belief initialises the action tokens (2511.18960, "state-based initialisation").
        recurrent: off, the belief handed on is always zero (the ablation without memory).
        vocabulary: words of the small presets' tokenizer, in id order after the special tokens.
        tokenizer: text of the tokenizer.json that an OpenVLA backbone reads prompts by; a file of its own in a
            checkpoint. lora: adapters of an OpenVLA backbone.
        action_noise: deviation that chunks drawn for PPO begin with, in normalised units; None: it draws none.
    """

    preset: str = "small"
    chunk: int = 8
    action_dim: int = 7
    proprio_dim: int = 8
    gripper: str = "signed"
    backbone: BackboneConfig | OpenVlaConfig = field(default_factory=BackboneConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    state_initialisation: bool = True
    recurrent: bool = True
    vocabulary: tuple[str, ...] = ()
    tokenizer: str = field(default="", repr=False)
    lora: LoraConfig | None = None
    action_noise: float | None = None

    @property
    def action_tokens(self) -> int:
        """M: one token a step of the chunk, in OpenVLA one a dimension of each step."""
        return self.chunk if isinstance(self.backbone, BackboneConfig) else self.backbone.action_tokens


def without_adaptive(config: PolicyConfig) -> PolicyConfig:
    """The same policy without AVA, belief and latent reasoning: on an OpenVLA backbone the published model itself."""
    return replace(
        config, attention=replace(config.attention, enabled=False), state_initialisation=False,
        latent=replace(config.latent, enabled=False, conditioning=False),
    )  # fmt: skip


def ablated(config: PolicyConfig, without: Sequence[str]) -> PolicyConfig:
    """The same policy without some of its parts, for ablations.

    Args:
        without: of "ava" (every visual token weighs 1), "belief" (each decision begins without memory), "latent" (z_0
            conditions the action and nothing is thought).

    Raises:
        InputError: there is no such part.
    """
    for part in without:
        check_known("part of the policy", part, ("ava", "belief", "latent"))
    if "ava" in without:
        config = replace(config, attention=replace(config.attention, enabled=False))
    if "belief" in without:
        config = replace(config, recurrent=False)
    if "latent" in without:
        config = replace(config, latent=replace(config.latent, enabled=False))
    return config


def openvla_policy(
    backbone: OpenVlaConfig,
    tokenizer: str = "",
    *,
    attention: AttentionConfig = PAPER_ATTENTION,
    latent: LatentConfig = PAPER_LATENT,
) -> PolicyConfig:
    """AVA and the latent loop on an OpenVLA model, in the papers' sizes."""
    return PolicyConfig(
        preset=backbone.preset, chunk=backbone.chunk, action_dim=backbone.action_dim, proprio_dim=backbone.proprio_dim,
        gripper="open_fraction", backbone=backbone, attention=attention, latent=latent, tokenizer=tokenizer,
    )  # fmt: skip


def preset(name: str) -> PolicyConfig:
    """The named preset.

    `small` acts on one CPU core in milliseconds; `small_fine` is the same with keypoints off a finer map, for CALVIN's
    blocks, which are twelve of 128 pixels wide; `openvla_7b` and `openvla_oft_7b` are the published geometries with
    AVA and the latent loop in the papers' sizes; `tabletop` learns tasks of that suite from 32 pixels in a minute or
    two (its latent state is wide and reaches the action undamped: below that, thirty demonstrations don't teach it
    which block is meant); the `tiny` ones are for tests.

    Raises:
        InputError: no such preset.
    """
    from avavla_ray.policy.vocabulary import WORDS

    tiny_attention = AttentionConfig(width=16, heads=2, sink_tokens=1)
    small = PolicyConfig(
        backbone=BackboneConfig(pool=2, keypoints_from_text=True),
        latent=LatentConfig(action_scale=1.0), vocabulary=WORDS,
    )  # fmt: skip
    presets = {
        "small": small,
        "small_fine": replace(
            small, preset="small_fine", backbone=replace(cast(BackboneConfig, small.backbone), fine_keypoints=True)
        ),
        "tiny": PolicyConfig(
            preset="tiny",
            backbone=BackboneConfig(
                width=32, layers=2, heads=2, image_size=32, stem_channels=(8, 16, 32), keypoints_from_text=True
            ),
            attention=tiny_attention, latent=_TINY_LATENT, vocabulary=WORDS,
        ),
        "tabletop": PolicyConfig(
            preset="tabletop",
            backbone=BackboneConfig(
                width=32, layers=2, heads=2, image_size=32, stem_channels=(16, 32), keypoints_from_text=True
            ),
            attention=tiny_attention, vocabulary=WORDS,
            latent=replace(
                _TINY_LATENT, width=64, encoding_width=128, action_scale=1.0, reasoner_width=32, transition_hidden=32,
                value_hidden=64, log_std_init=-0.5,
            ),
        ),
        "openvla_7b": openvla_policy(openvla.preset("openvla_7b")),
        "openvla_oft_7b": openvla_policy(openvla.preset("openvla_oft_7b")),
        "openvla_tiny": openvla_policy(openvla.preset("openvla_tiny"), attention=tiny_attention, latent=_TINY_LATENT),
        "openvla_oft_tiny": openvla_policy(
            openvla.preset("openvla_oft_tiny"), attention=tiny_attention, latent=_TINY_LATENT
        ),
    }  # fmt: skip
    check_known("preset", name, presets)
    return presets[name]


def check_depth(config: PolicyConfig, depth: int) -> None:
    """Raise InputError unless depth is a whole number and 0 <= depth <= K (0: act on z_0)."""
    if type(depth) is not int:
        raise InputError(f"latent depth {depth!r} is no whole number of steps")
    if not 0 <= depth <= config.latent.max_steps:
        raise InputError(f"latent depth {depth} is outside 0..{config.latent.max_steps}")
    if depth > 0 and not config.latent.enabled:
        raise InputError(f"latent depth {depth}: this policy has no latent loop, only depth 0")


def check_config(config: PolicyConfig) -> None:
    """Refuse a configuration that no module can be built from.

    Raises:
        InputError: a width that its heads do not divide, an image size that the stem does not, a threshold or ratio
            outside [0, 1], a backbone of another chunk or width than the policy's.
    """
    backbone, attention, latent = config.backbone, config.attention, config.latent
    for kind, width, divisor in (
        ("attention.width", attention.width, attention.heads),
        ("attention.width", attention.width, 4),
        ("latent.reasoner_width", latent.reasoner_width, latent.reasoner_heads),
        ("latent.width", latent.width, latent.transition_heads),
    ):
        _check_multiple(kind, width, divisor)
    if isinstance(backbone, BackboneConfig):
        _check_backbone(backbone)
        if config.lora is not None:
            raise InputError("lora: adapters need an OpenVLA backbone; the small presets train all their weights")
    else:
        openvla.check_config(backbone)
        for name in ("chunk", "action_dim", "proprio_dim"):
            own, theirs = getattr(config, name), getattr(backbone, name)
            # A policy may know of proprioception that its backbone has no token for.
            if own != theirs and not (name == "proprio_dim" and theirs == 0):
                raise InputError(f"{name} {own} is not the backbone's {theirs}: give both the same")
    if config.lora is not None:
        _check_lora(config.lora)
    if latent.max_steps < 1:
        raise InputError(f"latent.max_steps {latent.max_steps}: give at least 1, or set latent.enabled off")
    if latent.enabled and not latent.conditioning:
        raise InputError("latent.conditioning is off: thinking would change nothing, set latent.enabled off as well")
    if attention.sink_tokens > backbone.visual_tokens:
        raise InputError(
            f"attention.sink_tokens {attention.sink_tokens} exceed the {backbone.visual_tokens} visual tokens"
        )
    check_fraction("attention.keep_ratio", attention.keep_ratio)
    check_fraction("latent.exit_threshold", latent.exit_threshold)
    check_gate_maps(latent.gate_maps, latent.max_steps)
    check_known("gripper", config.gripper, GRIPPERS)
    if config.action_noise is not None and not config.action_noise > 0:
        raise InputError(f"action_noise {config.action_noise} is no standard deviation: give more than 0, or none")


def _check_multiple(kind: str, width: int, divisor: int) -> None:
    if width < 1 or width % divisor:
        raise InputError(f"{kind} {width} is not a positive multiple of {divisor}")


def _check_backbone(backbone: BackboneConfig) -> None:
    _check_multiple("backbone.width", backbone.width, backbone.heads)
    _check_multiple("backbone.width", backbone.width, 4)
    _check_multiple("backbone.image_size", backbone.image_size, 4 * 2 ** (len(backbone.stem_channels) - 1))
    if backbone.pool < 1 or backbone.feature_grid % backbone.pool:
        raise InputError(
            f"backbone.pool {backbone.pool} does not divide the {backbone.feature_grid} cells along a side of the map"
        )
    if backbone.fine_keypoints and len(backbone.stem_channels) < 2:
        raise InputError("backbone.fine_keypoints: a stem of one stage has no map before its last, give it another")
    if backbone.layers < 2:
        raise InputError(
            f"backbone.layers {backbone.layers}: the belief is read before the last layer, give at least 2"
        )
    if not 0.0 < backbone.crop <= 1.0:
        raise InputError(f"backbone.crop {backbone.crop} is outside (0, 1]: give the share of the area that is kept")


def _check_lora(lora: LoraConfig) -> None:
    if lora.rank < 1 or lora.alpha < 1:
        raise InputError(f"lora: rank {lora.rank} and alpha {lora.alpha} must be at least 1")
    if not 0.0 <= lora.dropout < 1.0:
        raise InputError(f"lora.dropout {lora.dropout} is outside [0, 1)")
    if not lora.targets:
        raise InputError("lora.targets is empty: give language, projector, or both")
    for target in lora.targets:
        check_known("lora target", target, ("language", "projector"))
