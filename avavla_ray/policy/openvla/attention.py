"""Attention kernels of the language model, chosen at run time, that give each key a bias.

The visual tokens' weights w (arXiv 2511.18960, section 3) multiply attention, which stays normalised; that equals
adding log w to the logits of their keys. Padding is a key with a bias of -inf. Every kernel computes the same; they
differ in what they need for it:

    sdpa      PyTorch's fused attention with the biases as its mask: one row, broadcast over the queries, or a row a
              query where attention is causal. In bfloat16 the biases are rounded to it.
    flex      FlexAttention: the biases are added inside of the compiled kernel, in float32, and nothing is masked.
    flash     A fused kernel that takes no mask: the biases travel in extra features of the keys.
    explicit  The definition, step by step in float32: for tests and debugging.

The functions have the signature of transformers' attention interface: query, key and value (B, heads, Q or S, head
width) to (B, Q, heads, head width). `key_bias` is (B, S) float32 or None. The queries are those of the whole sequence,
or of its last token, as in `OpenVla.generate`. Some key of every query must have a finite bias, as BOS does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from avavla_ray.errors import InputError, check_known
from avavla_ray.policy.openvla.sequence import later_keys

KERNELS = ("sdpa", "flex", "flash", "explicit")
# Stands for -inf where a kernel would make NaN of it: exp() of it is 0 next to any other logit.
_NEVER = -1e4


def explicit_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    is_causal: bool,
    key_bias: Tensor | None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax, multiply by the keys' weights, renormalise."""
    key, value = _for_every_head(module, key), _for_every_head(module, value)
    scores = scaling * query.float() @ key.float().transpose(2, 3)
    if is_causal:
        scores = scores.masked_fill(later_keys(query.shape[2], key.shape[2], query.device), -torch.inf)
    shares = scores.softmax(dim=-1)
    if key_bias is not None:
        shares = shares * key_bias.exp()[:, None, None]
        shares = shares / shares.sum(dim=-1, keepdim=True)
    return (shares @ value.float()).to(query.dtype).transpose(1, 2).contiguous(), None


def flash_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    is_causal: bool,
    key_bias: Tensor | None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Flash attention without a mask, by [q, 1] . [k, bias / s] * s = q . k * s + bias.

    Raises:
        InputError: float32 on a GPU, which has no such kernel.
    """
    if query.is_cuda and query.dtype == torch.float32:
        raise InputError("attention 'flash' needs bfloat16 on a GPU, got float32: choose 'sdpa' or the precision")
    width = query.shape[-1]
    key, value = _for_every_head(module, key), _for_every_head(module, value)
    if key_bias is not None:
        features = _bias_features((key_bias / scaling).clamp_min(_NEVER / scaling), width, key.dtype)
        extra = features.shape[-1]
        key = torch.cat([key, features[:, None].expand(-1, key.shape[1], -1, -1)], dim=-1)
        query, value = F.pad(query, (0, extra), value=1.0), F.pad(value, (0, extra))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=is_causal and query.shape[2] > 1, scale=scaling
        )
    return mixed[..., :width].transpose(1, 2).contiguous(), None


def flex_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    is_causal: bool,
    key_bias: Tensor | None,
    **_: Any,
) -> tuple[Tensor, None]:
    """FlexAttention, compiled on a GPU. On a processor it serves inference only, slowly."""
    key, value = _for_every_head(module, key), _for_every_head(module, value)
    causal = is_causal and query.shape[2] > 1

    def biased(score: Tensor, row: Tensor, head: Tensor, query_at: Tensor, key_at: Tensor) -> Tensor:
        if key_bias is not None:
            score = score + key_bias[row, key_at]
        return torch.where(query_at >= key_at, score, -torch.inf) if causal else score

    mixed = (_compiled_flex() if query.is_cuda else _flex())(query, key, value, score_mod=biased, scale=scaling)
    return mixed.transpose(1, 2).contiguous(), None


def attention_implementation(kernel: str) -> str:
    """The name under which transformers knows a kernel.

    Raises:
        InputError: no such kernel, or this PyTorch has it not.
    """
    check_known("attention", kernel, KERNELS)
    if kernel == "flex":
        _flex()
    if kernel == "flash" and torch.cuda.is_available() and not torch.backends.cuda.is_flash_attention_available():
        raise InputError("attention 'flash': this PyTorch was built without it: choose 'sdpa'")
    return _NAMES[kernel]


# transformers takes any name with "flash" in it for a package to load.
_NAMES = {"sdpa": "sdpa", "explicit": "avavla_explicit", "flash": "avavla_maskless", "flex": "avavla_flex"}
AttentionInterface.register(_NAMES["explicit"], explicit_attention)
AttentionInterface.register(_NAMES["flash"], flash_attention)
AttentionInterface.register(_NAMES["flex"], flex_attention)


def _for_every_head(module: nn.Module, x: Tensor) -> Tensor:
    groups = module.num_key_value_groups
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _bias_features(bias: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """(B, S) -> (B, S, 3 or more), whose sum is the bias to float32's precision even where `dtype` is bfloat16; as
    many as make the head's width a multiple of 8, with zeros behind the three."""
    high = bias.to(dtype)
    # All three have the same gradient, so one of them passes it on.
    rest = (bias - high).detach()
    middle = rest.to(dtype)
    parts = torch.stack([high, middle, (rest - middle).to(dtype)], dim=-1)
    return F.pad(parts, (0, -(width + 3) % 8))


def _flex() -> Callable[..., Any]:
    try:
        from torch.nn.attention.flex_attention import flex_attention
    except ImportError as error:
        raise InputError(f"attention 'flex': this PyTorch has no FlexAttention: choose 'sdpa' ({error})") from error
    return flex_attention


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(_flex())
