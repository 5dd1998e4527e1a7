"""MLflow's compare page in a headless Chromium: what its scatter plot shows, and a picture of it.

    python -m tests.support.compare_page --sweep NAME --output docs/compare.png

starts `mlflow server` on the store, opens the page of the sweep's trials, and puts success_rate over mean_latent_steps.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.command_line import run_job
from tests.support.ports import free_port

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
VIEW = {"width": 1400, "height": 820}
POINT_COLOUR = (200, 50, 100)  # MLflow's, of the scatter tab


def missing() -> str | None:
    """What this machine lacks to open a page, in words; None if nothing."""
    if not any(map(shutil.which, BROWSERS)):
        return "no Chromium: apt-get install chromium (cluster/setup.sh does it as root)"
    if importlib.util.find_spec("playwright") is None:
        return "no playwright, which drives it: pip install playwright"
    return None


@contextlib.contextmanager
def mlflow_server(uri: str, folder: Path) -> Iterator[str]:
    """`mlflow server` on an SQLite store, until the block ends; its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    log = folder / "mlflow_server.log"
    words = [str(Path(sys.executable).parent / "mlflow"), "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*words, "--port", str(port), "--workers", "1"], stdout=stream, stderr=stream, start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, cwd=folder,
        )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"mlflow server does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as reply:
            return reply.status == 200
    except (OSError, urllib.error.URLError):
        return False


@contextlib.contextmanager
def browser_page() -> Iterator[Any]:
    """A page of a Chromium of its own, which forgets everything."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)))
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=executable, headless=True, args=FLAGS, viewport=VIEW
        )
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()


@dataclass(frozen=True)
class ScatterPlot:
    """What the plot in the page was given, and drew.

    Attributes:
        points: (x, y). names: of their runs. axes: titles. drawn: pixels of a point's colour in the picture.
    """

    points: list[tuple[float, float]]
    names: list[str]
    axes: tuple[str, str]
    drawn: int


def open_scatter(page: Any, link: str, x: str, y: str, picture: Path) -> ScatterPlot:
    """Open a compare page's scatter tab and choose its axes."""
    page.goto(link)
    page.get_by_role("tab", name="Scatter Plot").click(timeout=90_000)
    for place, key in enumerate((x, y)):
        page.get_by_role("combobox").nth(place).click()
        page.get_by_role("option", name=key, exact=True).last.click()
    plot = page.locator(".js-plotly-plot:visible").first
    page.wait_for_function(
        "axes => [...document.querySelectorAll('.js-plotly-plot')].some(plot => plot.offsetParent && plot._fullLayout"
        " && plot._fullLayout.xaxis.title.text === axes[0] && plot._fullLayout.yaxis.title.text === axes[1])",
        arg=[x, y], timeout=30_000,
    )  # fmt: skip
    told = plot.evaluate(
        "plot => ({x: [...plot.data[0].x], y: [...plot.data[0].y], text: [...plot.data[0].text],"
        " axes: [plot._fullLayout.xaxis.title.text, plot._fullLayout.yaxis.title.text]})"
    )
    _take_picture(page, picture)
    points = [(float(a), float(b)) for a, b in zip(told["x"], told["y"], strict=True)]
    return ScatterPlot(points, told["text"], tuple(told["axes"]), _coloured(picture))


def open_view(page: Any, link: str, picture: Path) -> list[ScatterPlot]:
    """Open a prepared view of the chart page: its plots, whose axes nobody has to choose. `drawn` is not counted."""
    page.goto(link)
    plots = page.locator(".js-plotly-plot")
    plots.nth(1).wait_for(timeout=90_000)
    told = plots.evaluate_all(
        "plots => plots.map(plot => ({x: [...plot.data[0].x], y: [...plot.data[0].y],"
        " axes: [plot._fullLayout.xaxis.title.text, plot._fullLayout.yaxis.title.text]}))"
    )
    _take_picture(page, picture)
    return [ScatterPlot(list(zip(each["x"], each["y"], strict=True)), [], tuple(each["axes"]), 0) for each in told]


def _take_picture(page: Any, picture: Path) -> None:
    """Of the page, without the assistant that may stand at its right."""
    page.wait_for_timeout(500)  # the browser draws the points after it has been told of them
    page.mouse.move(0, 0)  # over a plot it would show the plot's tools
    assistant = page.get_by_text("MLflow Assistant")
    width = VIEW["width"]
    if assistant.count() and (box := assistant.last.bounding_box()) is not None:
        width = int(box["x"]) - 50
    page.screenshot(path=str(picture), clip={"x": 0, "y": 0, "width": width, "height": VIEW["height"]})


def _coloured(picture: Path) -> int:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    # A quarter of a white page shines through them.
    blended = 0.75 * np.array(POINT_COLOUR) + 0.25 * 255
    return int((np.abs(pixels - blended).max(-1) < 12).sum())


@dataclass(frozen=True)
class Settings:
    """Settings of a picture of the compare page."""

    sweep: str
    """The sweep's --run-id."""
    output: Path = Path("docs/compare.png")
    tracking_uri: str | None = None
    """SQLite store; the one under runs/ when left out."""


def main(settings: Settings) -> None:
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.comparison import Selection, newest
    from avavla_ray.tracking import children_of, compare_link, default_uri, find_sweep

    if (reason := missing()) is not None:
        raise InputError(reason)
    uri = settings.tracking_uri or default_uri()
    runs = newest(children_of(find_sweep(settings.sweep, uri=uri).info.run_id, uri=uri)[::-1], Selection())
    if not runs:
        raise InputError(f"sweep {settings.sweep} has no finished trial: let it finish")
    with tempfile.TemporaryDirectory() as folder, mlflow_server(uri, Path(folder)) as address, browser_page() as page:
        link = compare_link([run.info.run_id for run in runs], runs[0].info.experiment_id, address)
        shown = open_scatter(page, link, "mean_latent_steps", "success_rate", settings.output)
    print(f"{len(shown.points)} points in {settings.output}")


if __name__ == "__main__":
    run_job(main, Settings, __doc__)
