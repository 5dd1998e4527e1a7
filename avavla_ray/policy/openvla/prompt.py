"""Instructions to token ids, in the words that OpenVLA was trained with, by the checkpoint's own Llama tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from avavla_ray.errors import InputError, quoted
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.sequence import TextBatch

PROMPT = "In: What action should the robot take to {instruction}?\nOut:"


def read_tokenizer(path: Path) -> str:
    """Text of a tokenizer.json.

    Raises:
        InputError: the file is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: copy tokenizer.json from the OpenVLA checkpoint's folder") from error
    except ValueError as error:
        raise InputError(f"{path} is not a tokenizer ({error}): copy it from the checkpoint's folder again") from error


def _parse(text: str, place: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # what `tokenizers` raises has no narrower type
        raise InputError(f"{place} is not a tokenizer ({error}): copy it from the checkpoint's folder again") from error


def empty_token(path: Path) -> int:
    """Id of Llama's lone space, which training sequences have between prompt and actions (29871 in Llama 2).

    Raises:
        InputError: no such file, or no such token in it.
    """
    found = _parse(read_tokenizer(path), str(path)).token_to_id("▁")
    if found is None:
        raise InputError(f"{path} has no token '▁': it is not a Llama tokenizer")
    return found


class PromptTokenizer:
    """Token ids of prompts.

    Args:
        text: of tokenizer.json. place: its name in messages.

    Raises:
        InputError: the text is no tokenizer, or of another vocabulary than the model's.
    """

    def __init__(self, text: str, config: OpenVlaConfig, place: str = "tokenizer.json") -> None:
        self.config = config
        self._tokenizer = _parse(text, place)
        size = self._tokenizer.get_vocab_size()
        if size > config.language.vocabulary:
            raise InputError(
                f"{place} has {size} tokens, the model {config.language.vocabulary}: they do not belong together"
            )

    def ids(self, instruction: str) -> list[int]:
        """Prompt of an instruction, lower-cased, without BOS and with the empty token at its end.

        Raises:
            InputError: the instruction is empty or leaves no room for the images and actions.
        """
        language = self.config.language
        if not instruction.strip():
            raise InputError(f"instruction: {quoted(instruction)} has no words: say what to do")
        ids = self._tokenizer.encode(PROMPT.format(instruction=instruction.lower())).ids
        if ids and ids[0] == language.bos:
            ids = ids[1:]
        if ids[-1:] != [language.empty]:
            ids = [*ids, language.empty]
        if len(ids) > self.config.max_text_tokens:
            raise InputError(
                f"instruction: {len(ids)} tokens with its prompt, the policy reads at most "
                f"{self.config.max_text_tokens}: shorten {quoted(instruction)}"
            )
        return ids

    def encode(self, instruction: str) -> Tensor:
        """(max_text_tokens,) int64, padded on the left: what the policy's tokenizers have in common.

        Raises:
            InputError: as `ids`.
        """
        ids = self.ids(instruction)
        encoded = torch.full((self.config.max_text_tokens,), self.config.language.padding)
        encoded[len(encoded) - len(ids) :] = torch.tensor(ids)
        return encoded

    def batch(self, instructions: Sequence[str]) -> TextBatch:
        """Prompts of B instructions, padded on the left where their lengths differ."""
        rows = [self.ids(instruction) for instruction in instructions]
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self.config.language.padding)
        present = torch.zeros(len(rows), longest, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, longest - len(row) :] = torch.tensor(row)
            present[index, longest - len(row) :] = True
        return TextBatch(ids, None if bool(present.all()) else present)
