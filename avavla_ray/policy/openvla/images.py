"""A camera's picture to the model's: the resizing and the centre crop that OpenVLA's evaluation does with TensorFlow.

`resize` is TensorFlow's antialiased Lanczos-3 up to one level in a few pixels of 10,000; Pillow's own LANCZOS is not,
since it rounds and clips to bytes between its two passes (a fifth of the pixels differ, by tens of levels next to hard
edges). The JPEG step writes the same bytes, but TensorFlow reads them with the fast inverse DCT, which Pillow does not
offer: pictures that take this step differ by about one level, at most ten.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from avavla_ray.errors import InputError
from avavla_ray.policy.crop import centre_crop
from avavla_ray.policy.openvla.config import OpenVlaConfig

_LANCZOS_RADIUS = 3.0


def prepare_images(images: np.ndarray, config: OpenVlaConfig, *, jpeg: bool = True, crop: bool = True) -> np.ndarray:
    """Pictures as the policy was trained on them.

    Args:
        images: (..., H, W, 3) uint8, already upright.
        jpeg: pass pictures of another size through JPEG first, as the reference does because its training data were
            stored so.
        crop: take the centre crop; off where training takes a random one.

    Returns:
        (..., S, S, 3) uint8, S = config.image_size.

    Raises:
        InputError: not uint8 RGB pictures.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise InputError(
            f"images have shape {images.shape} and type {images.dtype}: give (..., height, width, 3) uint8"
        )
    size, flat = config.image_size, images.reshape(-1, *images.shape[-3:])
    prepared = np.empty((len(flat), size, size, 3), np.uint8)
    for index, image in enumerate(flat):
        if image.shape[:2] != (size, size):
            image = resize(_through_jpeg(image) if jpeg else image, size)
        prepared[index] = centre_crop(image, config.crop) if crop and config.crop < 1 else image
    return prepared.reshape(*images.shape[:-3], size, size, 3)


def _through_jpeg(image: np.ndarray) -> np.ndarray:
    # TensorFlow's encode_jpeg: quality 95, halved chroma.
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling="4:2:0")
    return np.asarray(Image.open(buffer))


@functools.lru_cache(maxsize=16)
def _lanczos(length: int, size: int) -> np.ndarray:
    """(size, length) float32 weights of an antialiased Lanczos-3 resize of one axis."""
    step = length / size
    stretch = max(step, 1.0)
    centres = (np.arange(size) + 0.5) * step
    x = np.abs((np.arange(length) + 0.5)[None] - centres[:, None]) / stretch
    near = np.pi * np.maximum(x, 1e-3)
    weights = _LANCZOS_RADIUS * np.sin(near) * np.sin(near / _LANCZOS_RADIUS) / near**2
    weights = np.where(x > _LANCZOS_RADIUS, 0.0, np.where(x <= 1e-3, 1.0, weights))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3) uint8 by Lanczos-3 with antialiasing."""
    rows, columns = _lanczos(image.shape[0], size), _lanczos(image.shape[1], size)
    resized = np.einsum("yh,hwc,xw->yxc", rows, image.astype(np.float32), columns, optimize=True)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)
