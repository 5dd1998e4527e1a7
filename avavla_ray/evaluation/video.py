"""MP4 of an evaluated episode, with the policy's thinking written on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avavla_ray.evaluation.episode import Film
from avavla_ray.files import atomic_path

SCALE_TO = 384


def annotate(frame: np.ndarray, lines: list[str], size: int = SCALE_TO) -> np.ndarray:
    """(H, W, 3) uint8 scaled to `size` pixels high with `lines` in a band below: (size + band, size, 3) uint8."""
    picture = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
    band = 16 * len(lines) + 8
    band += (size + band) % 2  # H.264 wants even sizes
    canvas = Image.new("RGB", (size, size + band), "black")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        draw.text((6, size + 4 + 16 * row), line, fill="white", font=ImageFont.load_default(size=12))
    return np.asarray(canvas)


def write_video(path: str | Path, film: Film, *, title: str, outcome: str, fps: int = 20) -> None:
    """Write the episode at `fps` (LIBERO controls at 20 Hz, so 20 is real time); the last frame stays for a second."""
    import imageio.v2 as imageio

    with atomic_path(path) as temporary:
        target = temporary.with_suffix(".mp4")
        writer: Any = imageio.get_writer(str(target), format="FFMPEG", fps=fps, macro_block_size=2, codec="libx264")  # type: ignore[arg-type]
        with writer:
            for index, (frame, steps, score) in enumerate(zip(film.frames, film.steps, film.scores, strict=True)):
                thought = f"latent steps {steps}" + ("" if math.isnan(score) else f"   exit score {score:.2f}")
                writer.append_data(annotate(frame, [title, f"step {index + 1:3d}   {thought}"]))
            for _ in range(fps if film.frames else 0):
                writer.append_data(annotate(film.frames[-1], [title, outcome]))
        target.rename(temporary)
