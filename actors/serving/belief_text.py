"""A belief as text, for clients that keep it themselves.

Layout before base64: the first 16 bytes of the policy's digest, then hidden and history as little-endian float32. It is
lossless, and the digest keeps a belief from being handed to another policy, where it would mean nothing.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from actors.serving.messages import BeliefArrays, PolicyFacts
from actors.serving.wire import decode_base64
from avavla_ray.errors import InputError
from avavla_ray.policy.robot import LARGEST_BELIEF

_MARK = 16


def encode_belief(belief: BeliefArrays, facts: PolicyFacts) -> str:
    content = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in belief)
    return base64.b64encode(bytes.fromhex(facts.digest)[:_MARK] + content).decode()


def decode_belief(value: Any, facts: PolicyFacts) -> BeliefArrays:
    """Inverse of `encode_belief`.

    Raises:
        InputError: it is not a belief of this policy.
    """
    content = decode_base64("belief", value)
    sizes = [int(np.prod(shape)) for shape in (facts.hidden, facts.history)]
    expected = _MARK + 4 * sum(sizes)
    if len(content) != expected:
        raise InputError(f"belief: {len(content)} bytes, this policy's have {expected}: give back what it answered")
    if content[:_MARK] != bytes.fromhex(facts.digest)[:_MARK]:
        raise InputError("belief: from another policy: leave it out and begin the episode anew")
    numbers = np.frombuffer(content, "<f4", offset=_MARK)
    if not np.isfinite(numbers).all():
        raise InputError("belief: holds NaN or an infinite number: give back what the policy answered")
    if np.abs(numbers).max(initial=0.0) > LARGEST_BELIEF:
        raise InputError(f"belief: holds numbers beyond {LARGEST_BELIEF:g}: give back what the policy answered")
    return BeliefArrays(numbers[: sizes[0]].reshape(facts.hidden), numbers[sizes[0] :].reshape(facts.history))
