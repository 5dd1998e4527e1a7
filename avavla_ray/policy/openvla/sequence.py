"""The language model's sequence: [BOS, visual, proprioception, text, actions, stop], with positions and mask.

Texts of a batch differ in length. The shorter ones are padded on their left, inside the sequence, so that the prompt
ends and the actions begin at the same place in every row; positions skip the padding and no query attends to it, so
each row computes what it would compute alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TextBatch(NamedTuple):
    """Prompts without their BOS: ids (B, L) int64, padded on the left; present (B, L) bool, False where padded, or
    None where no row is, which spares the attention kernels a mask."""

    ids: Tensor
    present: Tensor | None


class Sequence(NamedTuple):
    """embeddings (B, S, D); positions (B, S) int64; key_bias (B, S) float32, or None where every key
    counts alike.

    first_read: index of the position whose hidden state belongs to the first action token. As in any language model
    that is the position before it, so M actions are read at first_read .. first_read + M - 1.
    """

    embeddings: Tensor
    positions: Tensor
    key_bias: Tensor | None
    first_read: int


def assemble(
    bos: Tensor,
    visual: Tensor,
    proprio: Tensor | None,
    text: Tensor,
    present: Tensor | None,
    actions: Tensor,
    stop: Tensor | None,
    *,
    visual_bias: Tensor | None = None,
    visual_index: Tensor | None = None,
    visual_total: int | None = None,
) -> Sequence:
    """Join the parts.

    Args:
        bos, stop: (1, 1, D). visual: (B, N', D). proprio: (B, 1, D). text: (B, L, D). actions: (B, M, D).
        present: (B, L) bool, or None for no padding.
        visual_bias: (B, N') float, added to every query's attention logits for these tokens.
        visual_index: (B, N') places of the visual tokens among the `visual_total` that there were before pruning:
            they keep their positions, so that a dropped token is the same as one with a bias of -inf.
    """
    B, N = visual.shape[:2]
    device = visual.device
    parts = [bos.expand(B, -1, -1), visual, proprio, text, actions, None if stop is None else stop.expand(B, -1, -1)]
    embeddings = torch.cat([part for part in parts if part is not None], dim=1)
    index = torch.arange(N, device=device).expand(B, -1) if visual_index is None else visual_index
    after = 1 + (N if visual_total is None else visual_total)
    places = [torch.zeros(B, 1, dtype=torch.int64, device=device), 1 + index]
    if proprio is not None:
        places.append(torch.full((B, 1), after, device=device))
        after += 1
    L = text.shape[1]
    count = torch.arange(1, L + 1, device=device).expand(B, -1) if present is None else present.cumsum(dim=1)
    places.append((after + count - 1).clamp_min(0))
    tail = actions.shape[1] + (stop is not None)
    places.append(after + count[:, -1:] + torch.arange(tail, device=device))
    bias = None
    if visual_bias is not None or present is not None:
        start = embeddings.shape[1] - tail - L
        bias = torch.zeros(embeddings.shape[:2], device=device)
        if visual_bias is not None:
            bias[:, 1 : 1 + N] = visual_bias.to(bias.dtype)
        if present is not None:
            bias[:, start : start + L].masked_fill_(~present, -torch.inf)
    return Sequence(embeddings, torch.cat(places, dim=1), bias, embeddings.shape[1] - tail - 1)


def attention_mask(key_bias: Tensor | None, queries: int, causal: bool, dtype: torch.dtype) -> Tensor | None:
    """Additive mask (B, 1, 1 or Q, S) for the last `queries` positions; None where the kernel needs none.

    A bidirectional bias stays one row that broadcasts over queries.
    """
    if key_bias is None:
        return None
    bias = key_bias[:, None, None, :].to(dtype)
    if not causal or queries == 1:
        return bias
    return bias.expand(-1, -1, queries, -1).masked_fill(later_keys(queries, bias.shape[3], bias.device), -torch.inf)


def later_keys(queries: int, keys: int, device: torch.device) -> Tensor:
    """(Q, S) bool: which keys come after each of the last `queries` positions."""
    rows = torch.arange(keys - queries, keys, device=device)[:, None]
    return torch.arange(keys, device=device) > rows
