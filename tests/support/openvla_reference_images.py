"""Compute tests/unit/data/openvla_images.npz with TensorFlow's own resizing. Not a test; run by hand.

    pip install "tensorflow-cpu==2.15.1" "numpy<2"
    python tests/support/openvla_reference_images.py tests/unit/data/openvla_images.npz

The calls are those of OpenVLA's evaluation: an antialiased Lanczos-3 resize, rounded; and crop_and_resize of the
centre that holds 0.9 of the area, in [0, 1].
"""

from __future__ import annotations

import sys

import numpy as np

SIZE = 56


def picture() -> np.ndarray:
    """(90, 70, 3) uint8: noise over a slope, so that every level occurs."""
    random = np.random.RandomState(5)
    slope = np.linspace(0, 180, 90)[:, None, None] + np.zeros((90, 70, 3))
    return np.clip(slope + random.randint(0, 80, slope.shape), 0, 255).astype(np.uint8)


def main(output: str) -> None:
    import tensorflow as tf

    resized = tf.image.resize(picture(), (SIZE, SIZE), method="lanczos3", antialias=True)
    resized = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    side = tf.reshape(tf.sqrt(0.9), (1,))
    box = tf.stack([(1 - side) / 2, (1 - side) / 2, (1 - side) / 2 + side, (1 - side) / 2 + side], axis=1)
    values = tf.image.convert_image_dtype(resized, tf.float32)[None]
    cropped = tf.clip_by_value(tf.image.crop_and_resize(values, box, [0], (SIZE, SIZE))[0], 0, 1)
    cropped = tf.image.convert_image_dtype(cropped, tf.uint8, saturate=True)
    np.savez_compressed(output, resized=resized.numpy(), cropped=cropped.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
