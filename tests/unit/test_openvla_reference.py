"""Equal to the reference implementation: its numbers on seeded random weights, imported as a published checkpoint.

The golden files were made by tests/support/openvla_reference.py; see there.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from avavla_ray.policy.checkpoint import Checkpoint
from avavla_ray.policy.openvla.sequence import TextBatch
from tests.support.openvla_folder import import_and_load, write_published
from tests.support.openvla_weights import Sizes, golden_inputs

SIZES = Sizes()
DATA = Path(__file__).parent / "data"


def _load(folder: Path, oft: bool) -> Checkpoint:
    write_published(folder / "published", SIZES, oft=oft)
    return import_and_load(folder / "published", folder / "ours")


@pytest.fixture(scope="module")
def openvla(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return _load(tmp_path_factory.mktemp("openvla"), oft=False)


@pytest.fixture(scope="module")
def oft(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return _load(tmp_path_factory.mktemp("oft"), oft=True)


def _text(inputs: dict[str, np.ndarray]) -> TextBatch:
    """Both prompts in one batch, without BOS and with the empty token that the reference adds."""
    rows = [[*inputs[f"prompt_{row}"][1:].tolist(), 29871] for row in range(2)]
    ids = torch.full((2, max(map(len, rows))), 32000)
    for row, tokens in enumerate(rows):
        ids[row, -len(tokens) :] = torch.tensor(tokens)
    return TextBatch(ids, ids != 32000)


def _close(ours: torch.Tensor, golden: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours.detach().double().numpy(), golden, rtol=0, atol=tolerance)


@torch.no_grad()
def test_openvla_features_logits_and_actions(openvla: Checkpoint) -> None:
    model, golden, inputs = (
        openvla.policy.backbone.model,
        np.load(DATA / "openvla_golden.npz"),
        golden_inputs(SIZES, images=1),
    )
    images, text = torch.from_numpy(inputs["images"]), _text(inputs)
    _close(model.vision(images)[:, ::16], golden["features"])
    visual = model.encode_images(images)
    _close(visual[:, ::16], golden["visual"])
    ids, logits, _, _ = model.generate(visual, model.embed_text(text.ids), text.present)
    assert ids.tolist() == golden["largest"].tolist()
    _close(logits[..., 31744:32000], golden["logits"])
    _close(logits.amax(-1), golden["largest_logit"])
    chunk = model.act(images, text)
    actions = openvla.statistics_of("golden").action.unnormalise(chunk.numpy())
    np.testing.assert_allclose(actions[:, 0], golden["actions"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_openvla_one_pass_over_given_actions_equals_token_by_token(openvla: Checkpoint) -> None:
    model, golden, inputs = (
        openvla.policy.backbone.model,
        np.load(DATA / "openvla_golden.npz"),
        golden_inputs(SIZES, images=1),
    )
    text = _text(inputs)
    actions = model.embed_text(torch.from_numpy(golden["largest"]))
    visual = model.encode_images(torch.from_numpy(inputs["images"]))
    decoded = model.decode(visual, model.embed_text(text.ids), text.present, actions=actions)
    generated = model.generate(visual, model.embed_text(text.ids), text.present)
    for one_pass, by_token in zip(decoded, (generated.before, generated.last), strict=True):
        torch.testing.assert_close(one_pass, by_token, rtol=0, atol=1e-5)
    _close(model.logits(decoded.last)[..., 31744:32000], golden["logits"])


@torch.no_grad()
def test_oft_hidden_states_logits_and_chunk(oft: Checkpoint) -> None:
    model, golden, inputs = (
        oft.policy.backbone.model,
        np.load(DATA / "openvla_oft_golden.npz"),
        golden_inputs(SIZES, images=2),
    )
    images, text = torch.from_numpy(inputs["images"]), _text(inputs)
    statistics = oft.statistics_of("golden")
    proprio = torch.from_numpy(statistics.proprio.normalise(inputs["proprio"]))
    _close(model.vision(images)[:, ::16], golden["features"])
    visual = model.encode_images(images)
    _close(visual[:, ::16], golden["visual"])
    decoded = model.decode(visual, model.embed_text(text.ids), text.present, proprio=model.embed_proprio(proprio))
    _close(decoded.before, golden["before"])
    _close(decoded.last, golden["hidden"])
    logits = model.logits(decoded.last)
    _close(logits[:, ::8, 31744:32000], golden["logits"])
    assert logits.argmax(-1).tolist() == golden["largest"].tolist()
    _close(logits.amax(-1), golden["largest_logit"])
    actions = statistics.action.unnormalise(model.act(images, text, proprio).numpy())
    np.testing.assert_allclose(actions, golden["actions"], rtol=0, atol=1e-5)
    tokens = model.bins.decode(logits.argmax(-1)).unflatten(1, (8, 7))
    np.testing.assert_allclose(
        statistics.action.unnormalise(tokens.numpy()), golden["token_actions"], rtol=0, atol=1e-5
    )
