from __future__ import annotations

import subprocess
import sys

import pytest

from avavla_ray.errors import InputError
from avavla_ray.policy.tokenizer import FIRST_WORD, PADDING, WordTokenizer, vocabulary_size
from avavla_ray.policy.vocabulary import WORDS

TOKENIZER = WordTokenizer(WORDS, max_tokens=24)


def test_words_are_distinct_and_sorted():
    assert list(WORDS) == sorted(set(WORDS))


def test_known_words_have_ids_of_their_own_in_vocabulary_order():
    ids = TOKENIZER.encode("Pick up the alphabet soup, and place it in the basket")
    assert ids.shape == (24,)
    assert (ids[:11] >= FIRST_WORD).all()
    assert (ids[11:] == PADDING).all()
    assert ids[2] == ids[9] == FIRST_WORD + WORDS.index("the")
    assert int(ids.max()) < vocabulary_size(WORDS)


def test_unknown_words_share_buckets_that_are_the_same_in_every_process():
    ids = TOKENIZER.encode("flibbertigibbet the zither")
    assert 1 <= ids[0] < FIRST_WORD
    assert ids[0] != ids[2]
    program = "from avavla_ray.policy.tokenizer import *; print(int(WordTokenizer((), 4).encode('flibbertigibbet')[0]))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(other.stdout) == ids[0]


@pytest.mark.parametrize(("text", "complaint"), [("", "no words"), (" ?! ", "no words"), ("go " * 25, "25 words")])
def test_refuses_nothing_and_too_much(text, complaint):
    with pytest.raises(InputError, match=f"^instruction: .*{complaint}"):
        TOKENIZER.encode(text)


def test_what_is_refused_is_not_quoted_whole():
    for text in ("go " * 25, " " * 999):
        with pytest.raises(InputError) as refusal:
            TOKENIZER.encode(text)
        assert text not in str(refusal.value)
        assert len(str(refusal.value)) < 140
