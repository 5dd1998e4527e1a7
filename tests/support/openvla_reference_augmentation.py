"""Compute tests/unit/data/openvla_augmentation.npz with TensorFlow's own operations. Not a test; run by hand.

    pip install tensorflow-cpu
    python tests/support/openvla_reference_augmentation.py tests/unit/data/openvla_augmentation.npz

Each operation as OpenVLA's data loader calls it, with the numbers that it would have drawn given: on floats in [0, 1],
clipped afterwards; and all of them one after the other, rounded down to bytes.
"""

from __future__ import annotations

import sys

import numpy as np

SIDE = float(np.sqrt(0.9))
CROPS = ((0.0, 0.0), (0.03, 0.01), (0.0513, 0.0513))  # top, left; at most 1 - SIDE
BRIGHTNESS = (-0.2, 0.13)
CONTRAST = (0.8, 1.2)
SATURATION = (0.8, 1.2, 1.9)
HUE = (-0.05, 0.02, 0.31)
# top, left, then each operation's number
CHAINS = ((0.02, 0.04, 0.15, 1.17, 0.83, -0.04), (0.0, 0.01, -0.18, 0.85, 1.2, 0.05))


def picture() -> np.ndarray:
    """(24, 28, 3) uint8: noise over slopes, and patches of pure, grey, black and white pixels."""
    random = np.random.RandomState(7)
    slopes = np.stack(np.meshgrid(np.linspace(0, 200, 24), np.linspace(200, 0, 28), indexing="ij"), axis=-1)
    pixels = np.concatenate([slopes, slopes[::-1, :, :1]], axis=-1) + random.randint(0, 56, (24, 28, 3))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (90, 90, 90), (0, 0, 0), (255, 255, 255)]
    for index, colour in enumerate(colours):
        pixels[5:8, 4 * index : 4 * index + 4] = colour
    return pixels


def main(output: str) -> None:
    import tensorflow as tf

    def crop(values, top, left):
        box = tf.constant([[top, left, top + SIDE, left + SIDE]], tf.float32)
        return tf.image.crop_and_resize(values[None], box, [0], values.shape[:2])[0]

    steps = (
        tf.image.adjust_brightness, tf.image.adjust_contrast, tf.image.adjust_saturation, tf.image.adjust_hue,
    )  # fmt: skip
    values = tf.cast(picture(), tf.float32) / 255.0
    made = {"crop": [crop(values, *place) for place in CROPS]}
    for name, step, numbers in zip(
        ("brightness", "contrast", "saturation", "hue"), steps, (BRIGHTNESS, CONTRAST, SATURATION, HUE), strict=True
    ):
        made[name] = [step(values, number) for number in numbers]
    golden = {name: np.stack([tf.clip_by_value(each, 0, 1) for each in parts]) for name, parts in made.items()}
    chains = []
    for top, left, *numbers in CHAINS:
        result = tf.clip_by_value(crop(values, top, left), 0, 1)
        for step, number in zip(steps, numbers, strict=True):
            result = tf.clip_by_value(step(result, number), 0, 1)
        chains.append(tf.cast(result * 255, tf.uint8).numpy())
    np.savez_compressed(output, chain=np.stack(chains), **golden)


if __name__ == "__main__":
    main(*sys.argv[1:])
