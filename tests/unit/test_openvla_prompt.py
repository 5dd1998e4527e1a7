from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.actions import ActionBins
from avavla_ray.policy.openvla.config import preset
from avavla_ray.policy.openvla.prompt import PromptTokenizer, empty_token, read_tokenizer
from tests.support.openvla_folder import write_tokenizer

TINY = preset("openvla_tiny")


@pytest.fixture
def tokenizer(tmp_path: Path) -> PromptTokenizer:
    write_tokenizer(tmp_path / "tokenizer.json", empty=300)
    return PromptTokenizer(read_tokenizer(tmp_path / "tokenizer.json"), TINY)


def test_prompt_is_lower_cased_without_bos_and_ends_with_the_empty_token(tokenizer: PromptTokenizer) -> None:
    ids = tokenizer.ids("Pick UP bowl")
    assert ids == tokenizer.ids("pick up bowl")
    # In: What action should the robot take to pick up bowl?\nOut: ▁
    assert ids == [10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 43, 300]


def test_batch_is_padded_on_the_left(tokenizer: PromptTokenizer) -> None:
    batch = tokenizer.batch(["pick up bowl", "place it"])
    assert batch.present is not None
    assert batch.ids.shape == batch.present.shape == (2, 12)
    assert batch.present.sum(1).tolist() == [12, 11]
    assert batch.ids[1, 0] == TINY.language.padding
    assert batch.ids[:, -1].tolist() == [300, 300]
    assert tokenizer.batch(["place it", "place it"]).present is None


def test_empty_and_endless_instructions_are_refused(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(InputError, match="^instruction: '  ' has no words"):
        tokenizer.ids("  ")
    for instruction, words in (("bowl " * 300, 300), (" " * 300, 0)):
        with pytest.raises(InputError, match="^instruction: ") as refusal:
            tokenizer.ids(instruction)
        assert (f"at most {TINY.max_text_tokens}" in str(refusal.value)) == (words > 0)
        assert len(str(refusal.value)) < 160


def test_broken_and_foreign_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        empty_token(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        empty_token(tmp_path / "tokenizer.json")


@given(st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=20))
def test_actions_become_the_last_tokens_and_come_back_within_half_a_bin(values: list[float]) -> None:
    bins, actions = ActionBins(TINY), torch.tensor(values, dtype=torch.float64)
    ids = bins.encode(actions)
    assert bool(((ids >= TINY.words - 256) & (ids < TINY.words)).all())
    assert (bins.decode(ids) - actions.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-12


def test_bins_are_those_of_numpys_digitize() -> None:
    bins, edges = ActionBins(TINY), np.linspace(-1, 1, 256)
    values = np.concatenate([edges, edges + 1e-9, [-2.0, 2.0]])
    expected = TINY.words - np.digitize(np.clip(values, -1, 1), edges)
    assert bins.encode(torch.from_numpy(values)).tolist() == expected.tolist()
    assert bins.decode(torch.tensor([0, TINY.words + 5])).tolist() == pytest.approx([254.0 / 255, -254.0 / 255])
