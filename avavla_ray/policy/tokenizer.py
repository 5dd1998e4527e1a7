"""Instruction text to token ids without any download: one id a word, unknown words in stable hash buckets."""

from __future__ import annotations

import re
import zlib

import torch
from torch import Tensor

from avavla_ray.errors import InputError, quoted

PADDING = 0
HASH_BUCKETS = 63
FIRST_WORD = 1 + HASH_BUCKETS


def vocabulary_size(vocabulary: tuple[str, ...]) -> int:
    """Number of token ids: padding, hash buckets, words."""
    return FIRST_WORD + len(vocabulary)


class WordTokenizer:
    """Splits an instruction into lower-case words and looks them up.

    Args:
        vocabulary: known words, in id order after padding (0) and the hash buckets (1..63).
        max_tokens: L, the length of every encoding.
    """

    def __init__(self, vocabulary: tuple[str, ...], max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._ids = {word: FIRST_WORD + index for index, word in enumerate(vocabulary)}

    def _id(self, word: str) -> int:
        known = self._ids.get(word)
        # CRC32, since Python's own hash differs from process to process.
        return known if known is not None else 1 + zlib.crc32(word.encode()) % HASH_BUCKETS

    def encode(self, text: str) -> Tensor:
        """(L,) int64, padded with 0.

        Raises:
            InputError: the text has no word, or more than `max_tokens`.
        """
        words = re.findall(r"\w+", text.lower())
        if not words:
            raise InputError(f"instruction: {quoted(text)} has no words: say what to do")
        if len(words) > self.max_tokens:
            raise InputError(
                f"instruction: {len(words)} words, the policy reads at most {self.max_tokens}: shorten {quoted(text)}"
            )
        ids = torch.zeros(self.max_tokens, dtype=torch.int64)
        ids[: len(words)] = torch.tensor([self._id(word) for word in words])
        return ids
