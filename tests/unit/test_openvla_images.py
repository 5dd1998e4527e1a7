from pathlib import Path

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.policy.crop import centre_crop
from avavla_ray.policy.openvla.config import preset
from avavla_ray.policy.openvla.images import prepare_images, resize
from tests.support.openvla_reference_images import picture

GOLDEN = np.load(Path(__file__).parent / "data" / "openvla_images.npz")


def test_resize_is_tensorflows_antialiased_lanczos() -> None:
    difference = np.abs(resize(picture(), 56).astype(int) - GOLDEN["resized"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 2e-3


def test_centre_crop_is_tensorflows_to_the_bit() -> None:
    np.testing.assert_array_equal(centre_crop(GOLDEN["resized"], 0.9), GOLDEN["cropped"])


def test_pictures_of_the_right_size_are_only_cropped() -> None:
    config = preset("openvla_tiny")
    batch = np.stack([GOLDEN["resized"], GOLDEN["resized"][::-1]])[None]
    prepared = prepare_images(batch, config)
    assert prepared.shape == (1, 2, 56, 56, 3)
    np.testing.assert_array_equal(prepared[0, 0], GOLDEN["cropped"])


def test_jpeg_step_changes_other_sizes_a_little() -> None:
    plain = prepare_images(picture()[None], preset("openvla_tiny"), jpeg=False)
    through = prepare_images(picture()[None], preset("openvla_tiny"))
    assert through.shape == (1, 56, 56, 3)
    assert 0 < np.abs(plain.astype(int) - through).mean() < 10


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 3), np.float32), np.zeros((3, 8, 8), np.uint8), np.uint8(3)])
def test_wrong_pictures_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare_images(wrong, preset("openvla_tiny"))
