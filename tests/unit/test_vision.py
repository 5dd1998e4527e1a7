"""Visual tokens and keypoints of the small presets."""

from __future__ import annotations

import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.config import check_config
from avavla_ray.policy.vision import VisionEncoder
from tests.support.policies import random_inputs, stirred_policy, tiny


def test_a_pooled_token_is_the_mean_of_its_cells_and_keypoints_see_the_whole_map() -> None:
    fine, coarse = tiny(backbone__image_size=64), tiny(backbone__image_size=64, backbone__pool=2)
    assert (fine.backbone.visual_tokens, coarse.backbone.visual_tokens) == (2 * 16, 2 * 4)
    words, images = torch.randn(3, fine.backbone.width), random_inputs(fine, 3).images
    encoders = [VisionEncoder(config.backbone) for config in (fine, coarse)]
    for encoder in encoders:
        encoder.positions.data.zero_()
    shared = {name: part for name, part in encoders[0].state_dict().items() if name != "positions"}
    assert encoders[1].load_state_dict(shared, strict=False).missing_keys == ["positions"]
    (tokens, pooled), (means, same) = (encoder(images, words) for encoder in encoders)
    torch.testing.assert_close(same, pooled)
    # Camera by camera, row by row, cells of a 4 x 4 map.
    corner = [0, 1, 4, 5]
    torch.testing.assert_close(means[:, 0], tokens[:, corner].mean(1))
    torch.testing.assert_close(means[:, -1], tokens[:, [16 + cell + 10 for cell in corner]].mean(1))


def test_a_policy_of_pooled_tokens_weighs_so_many() -> None:
    config = tiny(backbone__image_size=64, backbone__pool=2)
    policy = stirred_policy(config)
    decision = policy.decide(random_inputs(config, 2), policy.initial_belief(2))
    assert decision.visual_weights.shape == (2, 8)


@pytest.mark.parametrize("pool", [0, 3])
def test_a_map_is_pooled_without_remainder(pool: int) -> None:
    with pytest.raises(InputError, match=f"backbone.pool {pool} does not divide the 4 cells"):
        check_config(tiny(backbone__image_size=64, backbone__pool=pool))
