"""One picture of every bundled task: python -m avavla_ray.simulators.libero.bundled.contact_sheet --output sheet.png"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.bundled.build import BUNDLED_SUITES

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Of the built-in font, pixels.
LETTER_WIDTH, LINE_HEIGHT = 6, 11


@dataclass(frozen=True)
class SheetSettings:
    """What to draw.

    Attributes:
        output: PNG file to write.
        suites: suites whose tasks are shown.
        tasks: indices of the tasks; all when empty.
        assets: official, bundled, or a directory.
        size: height and width of one picture, pixels.
        columns: tasks in a row.
        wrist: show the wrist camera's picture beside the scene's.
        initial_state: published initial state to show.
    """

    output: Path
    suites: tuple[str, ...] = BUNDLED_SUITES
    tasks: tuple[int, ...] = ()
    assets: str = "bundled"
    size: int = 192
    columns: int = 8
    wrist: bool = False
    initial_state: int = 0


def _pictures(settings: SheetSettings) -> list[tuple[str, np.ndarray]]:
    """The label of each task and its (H, W, 3) picture."""
    import numpy as np

    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import make_simulator

    found = []
    for suite in settings.suites:
        simulator = make_simulator(
            SimulatorConfig(suite=suite, assets=settings.assets, image_size=settings.size, render="reference")
        )
        instructions = simulator.spec.instructions
        for task in settings.tasks or range(len(instructions)):
            images = simulator.reset(task, initial_state=settings.initial_state).images
            # Observations are mirror images, as policies expect them; people want the true view.
            shown = [image[:, ::-1] for image in images[: 2 if settings.wrist else 1]]
            found.append((f"{suite} {task}: {instructions[task]}", np.concatenate(shown, axis=1)))
        simulator.close()
    return found


def sheet(settings: SheetSettings) -> Image:
    """The picture: each task's view, with suite, index and instruction above it."""
    from PIL import Image, ImageDraw

    pictures = _pictures(settings)
    width = pictures[0][1].shape[1]
    labels = [textwrap.wrap(label, width // LETTER_WIDTH) for label, _ in pictures]
    caption = LINE_HEIGHT * max(map(len, labels)) + 3
    rows = -(-len(pictures) // settings.columns)
    picture = Image.new("RGB", (settings.columns * width, rows * (settings.size + caption)), "white")
    for index, ((_, image), label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(index, settings.columns)
        left, top = column * width, row * (settings.size + caption)
        picture.paste(Image.fromarray(image), (left, top + caption))
        for line, text in enumerate(label):
            ImageDraw.Draw(picture).text((left + 2, top + line * LINE_HEIGHT), text, fill="black")
    return picture


def main(settings: SheetSettings) -> None:
    """Write the picture."""
    if settings.columns < 1:
        raise InputError(f"{settings.columns} columns: give at least 1")
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    sheet(settings).save(settings.output)
    print(f"wrote {settings.output}")


if __name__ == "__main__":
    run_job(main, SheetSettings)
