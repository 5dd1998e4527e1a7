"""MP4 of an evaluated episode, with the policy's thinking drawn on it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avavla_ray.evaluation.episode import Film
from avavla_ray.evaluation.heat_map import draw_weights
from avavla_ray.files import atomic_path

SCALE_TO = 384
LINE, LETTER, BAR, GAP = 16, 7, 12, 4  # pixels


def annotate(frame: np.ndarray, lines: list[str], size: int = SCALE_TO) -> np.ndarray:
    """Pictures side by side, scaled to `size` pixels high, with `lines` in a band below.

    Args:
        frame: (H, W, 3) uint8, W a multiple of H.

    Returns:
        (size + band, size * W / H, 3) uint8.
    """
    width = size * (frame.shape[1] // frame.shape[0])
    picture = Image.fromarray(frame).resize((width, size), Image.Resampling.BICUBIC)
    band = LINE * len(lines) + 8
    band += (size + band) % 2  # H.264 wants even sizes
    canvas = Image.new("RGB", (width, size + band), "black")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        draw.text((6, size + 4 + LINE * row), line, fill="white", font=ImageFont.load_default(size=12))
    return np.asarray(canvas)


def picture_of(
    film: Film, index: int, title: str, outcome: str = "", size: int = SCALE_TO, title_lines: int = 1
) -> np.ndarray:
    """One frame of a film as it is shown.

    The scene camera as it moves; with the pictures that it was decided on, the other cameras stand beside it. Over all
    lie the AVA weights of the decision: darker than the picture where a visual token counts less than 1, orange where
    it counts more. In the band below: the step, the latent steps taken, and for each of them the gate's score, as a
    number and as a bar beside the threshold (a white line) that it had to exceed.

    Args:
        outcome: how the episode ended, to stand there in place of the steps.
        title_lines: that the title takes at least.

    Returns:
        (size + band, size x cameras shown, 3) uint8.
    """
    views, weights, scores = film.views[index], film.weights[index], film.scores[index]
    pictures = [film.frames[index], *(views[1:] if views is not None else ())]
    scaled = [np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC)) for each in pictures]
    if weights is not None:
        cameras = 1 if views is None else len(views)
        grids = weights.reshape(cameras, -1)
        scaled = [draw_weights(each, grid, film.crop) for each, grid in zip(scaled, grids, strict=True)]
    thought = outcome or f"step {index + 1:3d}   latent steps {film.steps[index]}"
    gate = "gate " + "  ".join(f"{score:.2f}" for score in scores) if scores else "gate not asked"
    named = _wrapped(title, len(scaled), size)
    named += [""] * (title_lines - len(named))
    canvas = Image.fromarray(annotate(np.concatenate(scaled, axis=1), [*named, thought, gate], size))
    if scores:
        _draw_bars(canvas, film, scores, size)
    return np.asarray(canvas)


def _wrapped(title: str, pictures: int, size: int) -> list[str]:
    return textwrap.wrap(title, pictures * size // LETTER)


def _draw_bars(canvas: Image.Image, film: Film, scores: list[float], size: int) -> None:
    """The gate's scores as bars at the right of the band, below the title; the step that it left after is orange."""
    draw = ImageDraw.Draw(canvas)
    most = max(map(len, film.scores))
    bottom, height = canvas.height - 6, 2 * LINE - 4
    left = canvas.width - 6 - most * (BAR + GAP)
    draw.line((left - GAP, bottom + 1, canvas.width - 6, bottom + 1), fill="grey")
    for k, score in enumerate(scores):
        x = left + k * (BAR + GAP)
        colour = "orange" if k + 1 == len(scores) else "steelblue"
        draw.rectangle((x, bottom - round(height * score), x + BAR - 1, bottom), fill=colour)
    for k in range(most):
        limit = film.threshold
        if isinstance(limit, tuple):
            limit = limit[k] if k < len(limit) else None  # nobody is asked after the last possible step
        if limit is not None:
            x, y = left + k * (BAR + GAP), bottom - round(height * limit)
            draw.line((x - 1, y, x + BAR, y), fill="white")


class Scene(NamedTuple):
    """A film and what stands below it.

    outcome: how it ended, said on the last frame.
    """

    film: Film
    title: str
    outcome: str


def write_video(path: str | Path, scenes: Sequence[Scene], fps: int = 20) -> None:
    """Write one scene after the other at `fps` (LIBERO controls at 20 Hz, so 20 is real time); the last frame of each
    stays for a second."""
    import imageio.v2 as imageio

    with atomic_path(path) as temporary:
        target = temporary.with_suffix(".mp4")
        writer: Any = imageio.get_writer(str(target), format="FFMPEG", fps=fps, macro_block_size=2, codec="libx264")  # type: ignore[arg-type]
        with writer:
            lines = max(len(_wrapped(scene.title, scene.film.pictures, SCALE_TO)) for scene in scenes)
            for film, title, outcome in scenes:
                for index in range(len(film.frames)):
                    writer.append_data(picture_of(film, index, title, title_lines=lines))
                for _ in range(fps if film.frames else 0):
                    writer.append_data(picture_of(film, len(film.frames) - 1, title, outcome, title_lines=lines))
        target.rename(temporary)
