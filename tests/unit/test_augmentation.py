"""Augmentation: TensorFlow's operations to the last float bits, and draws that depend on their seed alone."""

from __future__ import annotations

import colorsys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.demonstrations import augmentation
from avavla_ray.demonstrations.augmentation import OPENVLA, Augmentation, augment
from avavla_ray.errors import InputError
from avavla_ray.policy.crop import crop_and_resize
from tests.support import openvla_reference_augmentation as reference

GOLDEN = np.load(Path(__file__).parent / "data" / "openvla_augmentation.npz")
OPERATIONS = ("brightness", "contrast", "saturation", "hue")


def values() -> np.ndarray:
    return reference.picture().astype(np.float32) / np.float32(255)


def pictures(cameras: int = 2, size: int = 16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (cameras, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
def test_colours_change_as_tensorflow_changes_them(name: str) -> None:
    adjust = getattr(augmentation, f"adjust_{name}")
    for number, golden in zip(getattr(reference, name.upper()), GOLDEN[name], strict=True):
        np.testing.assert_allclose(np.clip(adjust(values(), number), 0, 1), golden, atol=2e-6)


def test_a_crop_is_tensorflows() -> None:
    for (top, left), golden in zip(reference.CROPS, GOLDEN["crop"], strict=True):
        np.testing.assert_allclose(crop_and_resize(values(), top, left, reference.SIDE), golden, atol=1e-5)


def test_a_crop_at_the_border_stays_inside() -> None:
    found = crop_and_resize(values(), 1 - reference.SIDE, 1 - reference.SIDE, reference.SIDE)
    # TensorFlow blackens the last row or column where rounding puts it past the picture.
    np.testing.assert_allclose(found[-1, -1], values()[-1, -1], atol=1e-5)


class Drawn:
    """Random numbers that were drawn before, in the place of a generator; what was asked for is kept."""

    def __init__(self, numbers: tuple[float, ...]) -> None:
        self.numbers, self.asked = list(numbers), []

    def uniform(self, low: float, high: float, size: int | None = None) -> float | list[float]:
        self.asked.append((round(low, 6), round(high, 6)))
        return [self.numbers.pop(0) for _ in range(size)] if size else self.numbers.pop(0)


def test_openvlas_augmentation_is_its_loaders() -> None:
    for numbers, golden in zip(reference.CHAINS, GOLDEN["chain"], strict=True):
        drawn = Drawn(numbers)
        found = augment(reference.picture()[None], OPENVLA, drawn)[0]
        assert drawn.asked == [(0, round(1 - reference.SIDE, 6)), (-0.2, 0.2), (0.8, 1.2), (0.8, 1.2), (-0.05, 0.05)]
        difference = np.abs(found.astype(int) - golden.astype(int))
        # Bytes are rounded down, so that the last float bit can decide a level.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 2e-3


def test_saturation_and_hue_are_hsvs() -> None:
    random = np.random.default_rng(0)
    pixels = np.concatenate([random.random((60, 1, 3)), np.eye(3)[:, None], np.full((1, 1, 3), 0.4)]).astype(np.float32)
    saturated, turned = augmentation.adjust_saturation(pixels, 1.6), augmentation.adjust_hue(pixels, -0.21)
    for pixel, more, other in zip(pixels[:, 0], saturated[:, 0], turned[:, 0], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, pixel))
        np.testing.assert_allclose(more, colorsys.hsv_to_rgb(hue, min(1.6 * saturation, 1), value), atol=1e-5)
        np.testing.assert_allclose(other, colorsys.hsv_to_rgb((hue - 0.21) % 1, saturation, value), atol=1e-5)


def test_off_changes_nothing() -> None:
    images = pictures()
    assert augment(images, Augmentation(), np.random.default_rng(0)) is images


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation)])
def test_each_switch_changes_pictures_by_its_seed_alone_and_each_camera_on_its_own(name: str) -> None:
    chosen = Augmentation(**{name: {"crop": 0.8}.get(name, 0.3)})
    images = pictures()[[0, 0]]
    found = augment(images, chosen, np.random.default_rng(5))
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    assert not np.array_equal(found[0], images[0])
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found, augment(images, chosen, np.random.default_rng(5)))
    np.testing.assert_array_equal(found[:1], augment(images[:1], chosen, np.random.default_rng(5)))
    assert not np.array_equal(found, augment(images, chosen, np.random.default_rng(6)))


def test_a_shift_moves_pictures_and_repeats_their_edges() -> None:
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, 8, 8], image[:, 0] = 200, 90
    seen = set()
    for seed in range(60):
        moved = augment(image, Augmentation(shift=2 / 16), np.random.default_rng(seed))[0, ..., 0]
        ((row, column),) = np.argwhere(moved == 200)
        # Moved down, the picture's first row fills what is above it; moved up, it is out of sight.
        first = max(row - 7, 0)
        assert (moved[:first] == 90).all()
        assert not (moved[first:] == 90).any()
        seen.add((row - 8, column - 8))
    assert {row for row, _ in seen} == {column for _, column in seen} == {-2, -1, 0, 1, 2}


def test_a_crop_shows_a_square_share_from_anywhere_inside() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 64), (64, 64))
    image = np.stack([ramp, ramp.T, ramp], axis=-1).astype(np.uint8)[None]
    corners = []
    for seed in range(80):
        found = augment(image, Augmentation(crop=0.64), np.random.default_rng(seed))[0].astype(float) / 255
        assert np.allclose(found[0, -1, 0] - found[0, 0, 0], 0.8, atol=0.02)
        assert np.allclose(found[-1, 0, 1] - found[0, 0, 1], 0.8, atol=0.02)
        corners.append((found[0, 0, 0], found[0, 0, 1]))
    left, top = np.array(corners).T
    assert left.min() < 0.03 < 0.17 < left.max()
    assert top.min() < 0.03 < 0.17 < top.max()
    assert abs(np.corrcoef(left, top)[0, 1]) < 0.4


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("shift", -1), ("shift", 1.5), ("crop", 0.0), ("crop", 1.1), ("brightness", -0.1), ("contrast", 1.5),
     ("saturation", float("nan")), ("hue", 0.6)],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name: str, wrong: float) -> None:
    with pytest.raises(InputError, match=f"augmentation.{name}"):
        replace(OPENVLA, **{name: wrong})
