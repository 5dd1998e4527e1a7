"""One picture of every bundled task: python -m avavla_ray.simulators.libero.bundled.contact_sheet --output sheet.png"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.bundled.build import BUNDLED_SUITES

if TYPE_CHECKING:
    from PIL.Image import Image

CAPTION_HEIGHT = 14


@dataclass(frozen=True)
class SheetSettings:
    """What to draw.

    Attributes:
        output: PNG file to write.
        suites: suites whose tasks are shown.
        tasks: indices of the tasks; all when empty.
        assets: official, bundled, or a directory.
        size: height and width of one camera's picture, pixels.
        columns: tasks in a row; each shows the scene and the wrist camera.
        initial_state: published initial state to show.
    """

    output: Path
    suites: tuple[str, ...] = BUNDLED_SUITES
    tasks: tuple[int, ...] = ()
    assets: str = "bundled"
    size: int = 192
    columns: int = 4
    initial_state: int = 0


def sheet(settings: SheetSettings) -> Image:
    """The picture: scene and wrist camera of each task with its instruction above."""
    from PIL import Image, ImageDraw

    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import make_simulator

    cells = []
    for suite in settings.suites:
        simulator = make_simulator(
            SimulatorConfig(suite=suite, assets=settings.assets, image_size=settings.size, render="reference")
        )
        instructions = simulator.spec.instructions
        for task in settings.tasks or range(len(instructions)):
            images = simulator.reset(task, initial_state=settings.initial_state).images
            cell = Image.new("RGB", (2 * settings.size, settings.size + CAPTION_HEIGHT), "white")
            # Observations are mirror images, as policies expect them; people want the true view.
            for column, image in enumerate(images):
                cell.paste(Image.fromarray(image[:, ::-1]), (column * settings.size, CAPTION_HEIGHT))
            ImageDraw.Draw(cell).text((3, 1), f"{task} {instructions[task]}", fill="black")
            cells.append(cell)
        simulator.close()
    width, height = cells[0].size
    rows = -(-len(cells) // settings.columns)
    picture = Image.new("RGB", (settings.columns * width, rows * height), "white")
    for index, cell in enumerate(cells):
        picture.paste(cell, (index % settings.columns * width, index // settings.columns * height))
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
