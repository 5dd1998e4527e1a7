"""A tokenizer for an OpenVLA of random weights, whose own one can't be had: it fits the model's ids, not its words."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from avavla_ray.policy.openvla.config import OpenVlaConfig

UNKNOWN, FIRST = "<unk>", 3
# Llama's tokens of LIBERO's instructions have about 4 characters.
PIECE = 4


def stand_in_tokenizer(config: OpenVlaConfig) -> str:
    """Text of a tokenizer.json that cuts words into pieces of 4 characters, so that prompts get about the length that
    Llama's tokenizer gives them: every piece it doesn't know is one unknown token, which costs what another would."""
    language = config.language
    vocabulary = {UNKNOWN: 0, "<s>": language.bos, "</s>": language.stop, "▁": language.empty}
    taken = {*vocabulary.values(), language.padding}
    free = (index for index in range(FIRST, config.words - config.bins) if index not in taken)
    vocabulary |= {letter: next(free) for letter in "abcdefghijklmnopqrstuvwxyz?:"}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex(f".{{1,{PIECE}}}"), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", language.bos)])
    return tokenizer.to_str()
