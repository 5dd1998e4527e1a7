"""What the server's benchmark serves."""

from __future__ import annotations

import pytest

from actors.serving.replica import PolicyReplica
from benchmarks.serving import make_checkpoint
from tests.support.serving import policy_plan


@pytest.mark.parametrize("name", ["tiny", "openvla_oft_tiny", "openvla_tiny"])
def test_a_policy_of_random_weights_can_be_asked(tmp_path, name):
    replica = PolicyReplica(policy_plan(make_checkpoint(tmp_path / name, name, "cpu")))
    assert replica.problem() is None
    ids = replica._policy.preparation.text("pick up the alphabet soup and place it in the basket")
    config = replica.facts().config
    if name != "tiny":
        # About as many tokens as Llama's tokenizer makes of the prompt.
        assert 25 <= int(ids.ne(config.backbone.language.padding).sum()) <= 40
