"""What keypoints look for depends on the instruction, and checkpoints of before it could still act as they did."""

from __future__ import annotations

import pytest
import torch

from avavla_ray.policy.config import preset
from avavla_ray.policy.config_json import from_json, to_json
from avavla_ray.policy.policy import AvaVlaPolicy
from tests.support.policies import changed, random_inputs, tiny


def pooled(policy: AvaVlaPolicy, rows: int, words: torch.Tensor) -> torch.Tensor:
    """Of `rows` pictures that are all the same, (rows, V, F)."""
    images = random_inputs(policy.config, 1).images.expand(rows, -1, -1, -1, -1)
    with torch.no_grad():
        return policy.backbone.see(images, words).pooled


def test_keypoints_move_with_the_words_and_mean_features_do_not():
    torch.manual_seed(0)
    policy = AvaVlaPolicy(tiny())
    words = torch.randn(3, policy.config.backbone.width)
    before = pooled(policy, 3, words)
    assert torch.allclose(before[0], before[1]), "fresh weights look for the same whatever the words"
    torch.nn.init.normal_(policy.backbone.vision.asked)
    after = pooled(policy, 3, words)
    channels = policy.config.backbone.stem_channels[-1]
    torch.testing.assert_close(after[..., :channels], before[..., :channels])
    for one, other in ((0, 1), (1, 2), (0, 2)):
        moved = (after[one] - after[other])[:, channels:].abs().amax(dim=1)
        assert (moved > 0.05).all(), "in every camera"


@pytest.mark.parametrize("fine", [False, True])
def test_detectors_are_the_own_ones_and_what_the_words_add(fine):
    """Against a loop over rows, cameras and keypoints."""
    torch.manual_seed(0)
    policy = AvaVlaPolicy(tiny(backbone__fine_keypoints=fine))
    vision, config = policy.backbone.vision, policy.config.backbone
    torch.nn.init.normal_(vision.asked)
    inputs, words = random_inputs(policy.config, 2), torch.randn(2, config.width)
    with torch.no_grad():
        found = vision(inputs.images, words).pooled[..., config.stem_channels[-1] :].unflatten(-1, (-1, 2))
        for row in range(2):
            x = inputs.images[row].permute(0, 3, 1, 2).float() / 127.5 - 1
            features = (vision.stem[:-1] if fine else vision.stem)(x).flatten(2)  # (V, C, places)
            for camera in range(config.num_cameras):
                for point in range(config.keypoints):
                    own = vision.keypoints.weight.view(config.num_cameras, config.keypoints, -1)[camera, point]
                    added = vision.asked.view(config.keypoints, -1, config.width)[point] @ words[row]
                    share = ((own + added) @ features[camera]).softmax(0)
                    torch.testing.assert_close(found[row, camera, point], share @ vision.places, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["small", "small_fine", "tiny"])
def test_a_checkpoint_of_before_has_its_configuration_its_weights_and_its_digest(name):
    today = changed(preset(name), backbone__pool=1)
    old = to_json(today)
    del old["backbone"]["keypoints_from_text"]
    assert "pool" not in old["backbone"]
    config = from_json(old)
    assert to_json(config) == old
    torch.manual_seed(0)
    without = AvaVlaPolicy(config).state_dict()
    torch.manual_seed(0)
    weights = AvaVlaPolicy(today).state_dict()
    assert not weights.pop("backbone.vision.asked").any()
    assert weights.keys() == without.keys()
    assert all(torch.equal(weights[key], without[key]) for key in weights)
