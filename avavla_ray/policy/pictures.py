"""From what cameras give to the pictures that a policy was trained on. Imports without torch.

A policy that was trained on random crops acts on the centre crop of the same area: its backbone's `crop` says so, and
whatever acts, evaluates or serves prepares its pictures here.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.crop import centre_crop
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.images import prepare_images


def prepare_picture(image: np.ndarray, backbone: BackboneConfig | OpenVlaConfig) -> np.ndarray:
    """One camera's (H, W, 3) uint8 -> (S, S, 3) uint8, S = the backbone's image_size: resized, then cropped.

    OpenVLA's pictures are resized as in its training; others are resized if they must be.
    """
    if not isinstance(backbone, BackboneConfig):
        return prepare_images(image, backbone)
    image = _resized(image, backbone.image_size)
    return centre_crop(image, backbone.crop) if backbone.crop < 1 else image


def prepare_pictures(images: np.ndarray, backbone: BackboneConfig | OpenVlaConfig, *, crop: bool = True) -> np.ndarray:
    """Demonstrations' (T, cameras, H, W, 3) uint8 as `prepare_picture` would prepare each; of more cameras than the
    policy has, the first ones are taken.

    Small presets that see whole pictures get them in the size in which they are stored: the policy resizes on its own.

    Args:
        crop: take the policy's centre crop; off where a random one will stand in for it.
    """
    images = images[:, : backbone.num_cameras]
    if not isinstance(backbone, BackboneConfig):
        return prepare_images(images, backbone, crop=crop)
    if backbone.crop == 1.0:
        return images
    size = backbone.image_size
    flat = [_resized(image, size) for image in images.reshape(-1, *images.shape[2:])]
    if crop:
        flat = [centre_crop(image, backbone.crop) for image in flat]
    return np.stack(flat).reshape(*images.shape[:2], size, size, 3)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    # As the vision encoder would on its own, but before pictures of several sizes are put into one batch.
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
