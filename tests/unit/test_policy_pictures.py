"""Pictures for training and for acting are the same pictures; a random crop in training is a centre crop in acting."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from avavla_ray.demonstrations.augmentation import OPENVLA, Augmentation, check_augmentation, training_pictures
from avavla_ray.errors import InputError
from avavla_ray.normalisation import FieldStatistics, Statistics
from avavla_ray.policy.config import preset
from avavla_ray.policy.config_json import from_json, to_json
from avavla_ray.policy.crop import centre_crop, crop_and_resize
from avavla_ray.policy.pictures import prepare_picture, prepare_pictures
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.preparation import Preparation
from tests.support.openvla_folder import write_tokenizer

TINY = preset("tiny")
CROPPED = replace(TINY, backbone=replace(TINY.backbone, crop=0.81))


def pictures(size: int, cameras: int = 2, decisions: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (decisions, cameras, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("config", [CROPPED, preset("openvla_tiny"), preset("openvla_oft_tiny")])
def test_demonstrations_are_prepared_as_a_robots_pictures_are(config, size, tmp_path):
    if config is not CROPPED:
        write_tokenizer(tmp_path / "tokenizer.json", 300)
        config = replace(config, tokenizer=(tmp_path / "tokenizer.json").read_text())
    stored = pictures(size, cameras=3)
    cameras = config.backbone.num_cameras
    expected = np.stack([Preparation(config).images(list(decision[:cameras])) for decision in stored])
    np.testing.assert_array_equal(prepare_pictures(stored, config.backbone), expected)
    np.testing.assert_array_equal(Preparation(config).pictures(stored), expected)


def test_whole_pictures_of_a_small_preset_are_left_to_the_policy():
    stored = pictures(48)
    assert prepare_pictures(stored, TINY.backbone).base is stored
    resized = Image.fromarray(stored[0, 0]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(prepare_picture(stored[0, 0], TINY.backbone), np.asarray(resized))


def test_a_cropped_policy_acts_on_the_centre_of_the_resized_picture():
    image = np.zeros((64, 64, 3), np.uint8)
    image[4:60, 4:60] = 255  # its border, 4 of 64 pixels, is more than the (1 - 0.9) / 2 that a crop of 0.81 leaves out
    found = prepare_picture(image, replace(CROPPED.backbone, crop=0.64))
    np.testing.assert_array_equal(found, 255)
    assert prepare_picture(image, CROPPED.backbone)[0, 0, 0] < 255


def test_a_cropped_policy_decides_as_a_whole_one_that_is_shown_the_crop():
    torch.manual_seed(0)
    whole = AvaVlaPolicy(TINY).eval()
    cropped = AvaVlaPolicy(CROPPED).eval()
    cropped.load_state_dict(whole.state_dict())
    images, proprio = list(pictures(32)[0]), np.zeros(8)
    statistics = {"x": _statistics()}
    whole.statistics = cropped.statistics = statistics
    told = "pick up the alphabet soup and place it in the basket"
    shown = whole.act([centre_crop(image, 0.81) for image in images], told, proprio)
    np.testing.assert_array_equal(cropped.act(images, told, proprio).actions, shown.actions)
    assert not np.array_equal(whole.act(images, told, proprio).actions, shown.actions)


@pytest.mark.parametrize("config", [CROPPED, preset("openvla_tiny")])
def test_training_crops_at_random_what_acting_crops_at_the_centre(config):
    backbone, stored = config.backbone, pictures(48)[0]
    chosen = Augmentation(crop=backbone.crop)
    found = training_pictures(stored, chosen, np.random.default_rng(4), backbone)
    random = np.random.default_rng(4)
    uncropped = prepare_picture(stored[0], replace(backbone, crop=1.0))
    side = float(np.sqrt(backbone.crop))
    top, left = random.uniform(0, 1 - side, size=2)
    expected = crop_and_resize(uncropped.astype(np.float32) / np.float32(255), top, left, side)
    np.testing.assert_array_equal(found[0], (expected * np.float32(255)).astype(np.uint8))
    # Without a random crop, training sees what acting sees.
    plain = training_pictures(stored, Augmentation(), random, backbone)
    np.testing.assert_array_equal(plain, prepare_pictures(stored[None], backbone)[0])


def test_augmentation_must_crop_as_the_policy_does():
    check_augmentation(OPENVLA, preset("openvla_tiny").backbone)
    check_augmentation(Augmentation(), preset("openvla_tiny").backbone)
    check_augmentation(Augmentation(crop=0.81), CROPPED.backbone)
    with pytest.raises(InputError, match=r"augmentation.crop 0.9 is not the policy's 1.0"):
        check_augmentation(OPENVLA, TINY.backbone)


def test_a_config_from_before_there_was_a_crop_sees_whole_pictures():
    written = to_json(TINY)
    del written["backbone"]["crop"]
    assert from_json(written) == TINY
    assert from_json(to_json(CROPPED)) == CROPPED
    written["backbone"]["crop"] = 0.0
    with pytest.raises(InputError, match="backbone.crop 0.0 is outside"):
        from_json(written)


def test_pictures_are_prepared_without_torch():
    code = (
        "import sys, avavla_ray.demonstrations.augmentation, avavla_ray.policy.pictures; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def _statistics() -> Statistics:
    random = np.random.default_rng(0)
    return Statistics(
        "x", FieldStatistics.of(random.normal(size=(50, 7))), FieldStatistics.of(random.normal(size=(50, 8))), 1, 50
    )
