"""Names beside the points of a plot: none lies on another one or on a point, and few on a bar or a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_ALIKE = 5.0  # pixels between points that share one name
_MARK = 5.0  # half the size of a point's marker, pixels
# Where a name may stand: to the right and left first, since bars and curves rise and fall.
_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_DISTANCES = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0)
_TIED = 14  # pixels: a name farther than this is tied to its point by a thin line
_ON_TEXT, _ON_BAR = 20.0, 1.0  # how bad a covered pixel is

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class NamedPoint:
    """A point in the units of its axes, with the ends of its bar.

    Attributes:
        curve: points of the same one are joined by a line, in the order given; None for a point of its own.
    """

    x: float
    y: float
    low: float
    high: float
    name: str
    colour: str
    curve: str | None = None


def place_names(axis: Any, points: Sequence[NamedPoint], size: float = 7) -> list[Any]:
    """Write each point's name where there is room near it; points of one colour that lie on each other share one.

    Args:
        axis: of a figure that has been laid out.

    Returns:
        the annotations.
    """
    from matplotlib.text import Text

    renderer = axis.figure.canvas.get_renderer()
    points_a_pixel = 72 / axis.figure.dpi  # the picture may be saved at another resolution
    frame = axis.get_window_extent(renderer)
    places = [tuple(map(float, axis.transData.transform((point.x, point.y)))) for point in points]
    obstacles = [(_box(x, y, _MARK, _MARK), _ON_TEXT) for x, y in places]
    obstacles += [(bar, _ON_BAR) for bar in [*_bars(axis, points), *_lines(points, places)]]
    tags = []
    for (x, y), names, point in _merged(points, places):
        tag = axis.annotate(
            names, (point.x, point.y), xytext=(0, 0), textcoords="offset points", fontsize=size, color=point.colour,
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.6},
            arrowprops={"arrowstyle": "-", "color": point.colour, "alpha": 0.5, "linewidth": 0.6, "shrinkB": 3},
        )  # fmt: skip
        tag.arrow_patch.set_visible(False)
        extent = Text.get_window_extent(tag, renderer)  # without the line to its point
        width, height = extent.width / 2, extent.height / 2
        best: tuple[float, float, float, float] = (math.inf, 0.0, x, y)
        for distance in _DISTANCES:
            for across, up in _DIRECTIONS:
                cx, cy = x + across * (distance + width), y + up * (distance + height)
                box = _box(cx, cy, width, height)
                inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
                covered = sum(weight * _overlap(box, other) for other, weight in obstacles)
                # Of two places that cover alike, the nearer one; outside only if there is none inside.
                worth = covered + 0.5 * distance + (0.0 if inside else 1e9)
                best = min(best, (worth, distance, cx, cy), key=lambda each: each[0])
            if best[0] <= 0.5 * distance:
                break
        _, distance, cx, cy = best
        tag.set_position(((cx - width - x) * points_a_pixel, (cy - height - y) * points_a_pixel))
        tag.arrow_patch.set_visible(distance > _TIED)
        obstacles.append((_box(cx, cy, width, height), _ON_TEXT))
        tags.append(tag)
    return tags


def _bars(axis: Any, points: Sequence[NamedPoint]) -> list[Box]:
    boxes = []
    for point in points:
        x, low = axis.transData.transform((point.x, point.low))
        _, high = axis.transData.transform((point.x, point.high))
        boxes.append((x - 1.0, low, x + 1.0, high))
    return boxes


def _lines(points: Sequence[NamedPoint], places: Sequence[tuple[float, ...]]) -> list[Box]:
    """The curves, as chains of small boxes."""
    boxes = []
    last: dict[str, tuple[float, ...]] = {}
    for point, place in zip(points, places, strict=True):
        if point.curve is None:
            continue
        before = last.get(point.curve)
        last[point.curve] = place
        if before is None:
            continue
        pieces = max(1, math.ceil(math.dist(before, place) / 4))
        for piece in range(pieces):
            share = (piece + 0.5) / pieces
            x, y = (a + share * (b - a) for a, b in zip(before, place, strict=True))
            boxes.append(_box(x, y, 2, 2))
    return boxes


def _merged(
    points: Sequence[NamedPoint], places: Sequence[tuple[float, ...]]
) -> list[tuple[tuple[float, ...], str, NamedPoint]]:
    """Points of one colour that lie on each other as the first of them, their names joined."""
    groups: list[tuple[tuple[float, ...], list[str], NamedPoint]] = []
    for point, place in zip(points, places, strict=True):
        for other_place, names, other in groups:
            if other.colour == point.colour and math.dist(other_place, place) < _ALIKE:
                names.append(point.name)
                break
        else:
            groups.append((place, [point.name], point))
    return [(place, _wrapped(names), point) for place, names, point in groups]


def _wrapped(names: list[str]) -> str:
    """Three names a line."""
    return ",\n".join(", ".join(names[start : start + 3]) for start in range(0, len(names), 3))


def _box(x: float, y: float, half_width: float, half_height: float) -> Box:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share, pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
