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


def test_fine_keypoints_say_where_a_spot_smaller_than_a_coarse_cell_is() -> None:
    """Its place moves by less than one cell of the last map; a detector of the map before follows it exactly."""
    config = tiny(backbone__image_size=64, backbone__fine_keypoints=True).backbone
    assert (config.feature_grid, config.keypoint_grid) == (4, 8)
    encoder = VisionEncoder(config)
    spot = torch.zeros(config.stem_channels[-2])
    spot[0] = 100.0
    encoder.keypoints.weight.data[:] = spot
    places = []
    for place in (0, 1):
        seen = torch.zeros(1, config.stem_channels[-2], 8, 8)
        seen[:, 0, 3, 2 + place] = 1.0
        encoder.stem[-2].register_forward_hook(lambda *_, seen=seen: seen.expand(config.num_cameras, -1, -1, -1))
        images = torch.zeros(1, config.num_cameras, 64, 64, 3, dtype=torch.uint8)
        pooled = encoder(images, torch.zeros(1, config.width)).pooled
        places.append(pooled[0, :, -2:])
    for row, found in enumerate(places):
        torch.testing.assert_close(found, torch.tensor([[-0.125, -0.375 + 0.25 * row]]).expand(2, -1))


def test_fine_keypoints_need_a_map_before_the_last() -> None:
    with pytest.raises(InputError, match=r"backbone\.fine_keypoints: a stem of one stage"):
        check_config(tiny(backbone__image_size=64, backbone__stem_channels=(8,), backbone__fine_keypoints=True))


@pytest.mark.parametrize("pool", [0, 3])
def test_a_map_is_pooled_without_remainder(pool: int) -> None:
    with pytest.raises(InputError, match=f"backbone.pool {pool} does not divide the 4 cells"):
        check_config(tiny(backbone__image_size=64, backbone__pool=pool))
