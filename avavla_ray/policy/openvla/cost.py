"""What a plain decision costs, part by part: arithmetic and weights, from the sizes alone. Imports without torch.

A multiplication and an addition are two operations. Only matrix products count, as is usual: the rest is below a
percent. Attention counts in full where it is causal too, since that is what kernels without block masks compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from avavla_ray.policy.openvla.config import OpenVlaConfig, TowerConfig


@dataclass(frozen=True)
class PartCost:
    """One part's share of one decision.

    Attributes:
        tokens: rows that go through it, of all its passes.
        flops: floating-point operations. weights: parameters that it holds.
        passes: how often a decision reads all of its weights; 0 for the embedding, which looks up a row a token, and
            for a vocabulary that stays idle because the L1 head reads the actions.
    """

    part: str
    tokens: int
    flops: int
    weights: int
    passes: int = 1

    def weight_bytes(self, bytes_per_weight: int = 2) -> int:
        """Bytes of weights that a decision moves to the processor; 2 a weight is bfloat16."""
        return self.weights * self.passes * bytes_per_weight


def _tower_cost(name: str, config: OpenVlaConfig, tower: TowerConfig, dino: bool) -> PartCost:
    W, M, patches = tower.width, tower.mlp_width, config.grid**2
    prefix = 1 + tower.registers if dino else 0
    tokens, pixels, blocks = prefix + patches, 3 * config.patch_size**2, tower.layers - 1
    block = 2 * tokens * (4 * W * W + 2 * W * M) + 4 * tokens * tokens * W
    # Biases, two norms, and DINOv2's two layer scales.
    vectors = 4 * W + M + W + 4 * W + (2 * W if dino else 0)
    positions = patches + (1 if dino else 0)
    weights = pixels * W + W + (prefix + positions) * W + blocks * (4 * W * W + 2 * W * M + vectors)
    V = config.images
    return PartCost(name, V * tokens, V * (2 * patches * pixels * W + blocks * block), weights)


def layer_cost(config: OpenVlaConfig, tokens: int, part: str = "layer") -> PartCost:
    """One layer of the language model over `tokens` tokens at once: all of them query all of them."""
    return _layer_cost(config, part, [(tokens, tokens)])


def _layer_cost(config: OpenVlaConfig, part: str, passes: list[tuple[int, int]]) -> PartCost:
    """Passes of (queries, keys)."""
    language = config.language
    D = language.width
    key_value = D * language.key_value_heads // language.heads
    matrices = 2 * D * D + 2 * D * key_value + 3 * D * language.mlp_width
    tokens = sum(queries for queries, _ in passes)
    flops = 2 * tokens * matrices + sum(4 * queries * keys * D for queries, keys in passes)
    return PartCost(part, tokens, flops, matrices + 2 * D, len(passes))


def decision_cost(config: OpenVlaConfig, *, text_tokens: int, visual_tokens: int | None = None) -> list[PartCost]:
    """The parts of one plain decision, in their order; together they hold all of the model's weights.

    Args:
        text_tokens: L, of the prompt without BOS. visual_tokens: N', how many the language model sees after pruning;
            None for all.
    """
    D, N, A = config.language.width, config.visual_tokens, config.action_dim
    features = config.dino.width + config.siglip.width
    projector = 4 * features * features + 4 * features * D + D * D
    prompt = 1 + (N if visual_tokens is None else visual_tokens) + text_tokens
    rows = config.language.vocabulary
    if config.parallel:
        length = prompt + (config.proprio_dim > 0) + config.action_tokens + 1
        passes = [(length, length)]
    else:
        passes = [(prompt, prompt), *((1, prompt + i) for i in range(1, A))]
    parts = [
        _tower_cost("dino", config, config.dino, dino=True),
        _tower_cost("siglip", config, config.siglip, dino=False),
        PartCost("projector", N, 2 * N * projector, projector + 4 * features + 2 * D),
        PartCost("embedding", text_tokens + 2 if config.parallel else text_tokens + A, 0, rows * D, 0),
    ]
    if config.proprio_dim:
        matrices = config.proprio_dim * D + D * D
        parts.append(PartCost("proprio", 1, 2 * matrices, matrices + 2 * D))
    parts += [_layer_cost(config, f"layer {i}", passes) for i in range(config.language.layers)]
    read = 0 if config.head_blocks else config.action_tokens
    # With the final norm.
    parts.append(
        PartCost("vocabulary", read, 2 * read * rows * D, rows * D + D, 0 if config.head_blocks else len(passes))
    )
    if config.head_blocks:
        C, blocks = config.chunk, config.head_blocks
        matrices = A * D * D + blocks * D * D + D * A
        vectors = 2 * A * D + D + blocks * 3 * D + 2 * D + A
        parts.append(PartCost("l1 head", C, 2 * C * matrices, matrices + vectors))
    return parts
