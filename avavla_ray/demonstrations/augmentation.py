"""Random changes to a decision's pictures while training: a plain shift, then OpenVLA's crop and colour jitter.

The definitions are those of `tf.image`, in the order in which OpenVLA's data loader (dlimp) applies them: crop,
brightness, contrast, saturation, hue, on floats in [0, 1] that are clipped after each, and rounded down to bytes at the
end. Unlike there, every number is drawn on its own; dlimp seeds all of a picture's draws alike, so that its crops lie
on the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.crop import crop_and_resize
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.pictures import prepare_pictures


@dataclass(frozen=True)
class Augmentation:
    """How far pictures may be changed; the defaults change nothing.

    Attributes:
        shift: moved by up to so much of their width each way, in whole pixels; edges repeat.
        crop: share of the area that a random crop of the picture's own proportions keeps; it is resized back. A policy
            that is trained so must see the centre crop when it acts, see `check_augmentation`.
        brightness: up to so much is added, of a range of [0, 1].
        contrast: distances from each channel's mean are scaled by [1 - contrast, 1 + contrast].
        saturation: the same for the saturation of HSV. hue: up to so much of the colour circle is added to HSV's hue.
    """

    shift: float = 0.0
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.crop <= 1.0:
            raise InputError(
                f"augmentation.crop {self.crop} is outside (0, 1]: give the share of the area that is kept"
            )
        limits = (("shift", 0.5), ("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5))
        for name, most in limits:
            if not 0.0 <= getattr(self, name) <= most:
                raise InputError(f"augmentation.{name} {getattr(self, name)} is outside [0, {most:g}]")

    @property
    def _colours(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))


SHIFTED = Augmentation(shift=1 / 32)
OPENVLA = Augmentation(crop=0.9, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)


def check_augmentation(settings: Augmentation, backbone: BackboneConfig | OpenVlaConfig) -> None:
    """Raise InputError when pictures would be cropped otherwise than the policy's are when it acts.

    Without a random crop, training sees the policy's own centre crop.
    """
    if settings.crop not in (1.0, backbone.crop):
        raise InputError(
            f"augmentation.crop {settings.crop} is not the policy's {backbone.crop}, which it acts with: give both the "
            "same, or augmentation.crop 1"
        )


def training_pictures(
    images: np.ndarray,
    settings: Augmentation,
    random: np.random.Generator,
    backbone: BackboneConfig | OpenVlaConfig | None = None,
) -> np.ndarray:
    """One decision's stored pictures (cameras, H, W, 3) uint8 as training sees them.

    They are prepared for the policy and then changed, as in OpenVLA's loader; a random crop stands in for the policy's
    centre crop.

    Args:
        backbone: the policy's; None leaves the pictures as they are stored before they are changed.
    """
    if backbone is not None:
        images = prepare_pictures(images[None], backbone, crop=settings.crop == 1.0)[0]
    return augment(images, settings, random)


def augment(images: np.ndarray, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    """One decision's pictures (V, H, W, 3) uint8, changed; every camera draws on its own."""
    if settings == Augmentation():
        return images
    return np.stack([_augment_picture(image, settings, random) for image in images])


def _augment_picture(image: np.ndarray, settings: Augmentation, random: np.random.Generator) -> np.ndarray:
    if settings.shift:
        most = round(settings.shift * image.shape[1])
        down, right = random.integers(-most, most, size=2, endpoint=True)
        image = _shifted(image, down, right)
    if settings.crop == 1.0 and not settings._colours:
        return image
    pixels = image.astype(np.float32) / np.float32(255)
    if settings.crop < 1.0:
        side = float(np.sqrt(settings.crop))
        top, left = random.uniform(0.0, 1.0 - side, size=2)
        pixels = crop_and_resize(pixels, top, left, side)
    if settings.brightness:
        pixels = _clip(adjust_brightness(pixels, random.uniform(-settings.brightness, settings.brightness)))
    if settings.contrast:
        pixels = _clip(adjust_contrast(pixels, random.uniform(1 - settings.contrast, 1 + settings.contrast)))
    if settings.saturation:
        pixels = _clip(adjust_saturation(pixels, random.uniform(1 - settings.saturation, 1 + settings.saturation)))
    if settings.hue:
        pixels = _clip(adjust_hue(pixels, random.uniform(-settings.hue, settings.hue)))
    return (pixels * np.float32(255)).astype(np.uint8)


def _clip(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 1, out=pixels)


def _shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    return image[rows[:, None], columns[None, :]]


def adjust_brightness(pixels: np.ndarray, delta: float) -> np.ndarray:
    """`tf.image.adjust_brightness` of (H, W, 3) float32."""
    return pixels + np.float32(delta)


def adjust_contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """`tf.image.adjust_contrast` of (H, W, 3) float32: each channel about its own mean."""
    mean = pixels.mean((0, 1), dtype=np.float64).astype(np.float32)
    return (pixels - mean) * np.float32(factor) + mean


def adjust_saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """`tf.image.adjust_saturation` of (H, W, 3) float32 in [0, 1].

    HSV's S is (V - min) / V. Scaling it with V and H fixed scales each channel's distance from V.
    """
    high, low = _extremes(pixels)
    # S may grow to 1, that is by V / (V - min), and a grey pixel stays grey.
    room = np.divide(high, high - low, out=np.ones_like(high), where=high > low)
    return high[..., None] - (high[..., None] - pixels) * np.minimum(np.float32(factor), room)[..., None]


def adjust_hue(pixels: np.ndarray, delta: float) -> np.ndarray:
    """`tf.image.adjust_hue` of (H, W, 3) float32: `delta` of the colour circle is added to HSV's hue."""
    high, low = _extremes(pixels)
    red, green, blue = (pixels[..., channel] for channel in range(3))
    span = high - low
    scale = np.divide(np.float32(1), span, out=np.zeros_like(span), where=span > 0)
    # In sixths of the circle: red 0, green 2, blue 4.
    hue = np.where(
        red == high, (green - blue) * scale,
        np.where(green == high, (blue - red) * scale + np.float32(2), (red - green) * scale + np.float32(4)),
    )  # fmt: skip
    hue = np.mod(hue + np.float32(6 * delta), np.float32(6))
    shares = (np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4))
    return np.stack([low + span * np.clip(share, 0, 1) for share in shares], axis=-1)


def _extremes(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest channel, (H, W) each."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
