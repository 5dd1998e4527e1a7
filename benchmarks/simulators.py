#!/usr/bin/env python
"""What the simulators cost: LIBERO and CALVIN with stock settings and with ours, and the table-top.

Cases take turns with the same actions from the same published state (benchmarks/simulator_cost/turns.py); starting,
switching tasks and memory are measured in processes of their own (processes.py), and all of CALVIN (calvin.py). All
times are CPU times.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.files import write_json, write_text
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import CALVIN_SUITES, LIBERO_SUITES, SUITES, identify

QUICK_SUITE = "libero_object"
CALVIN_COLUMNS = (
    "ms_chunk_8", "ms_chunk_1", "speedup_vs_stock", "image_psnr_db", "start_s", "reset_s", "private_mib",
    "resident_mib",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: one suite, two cameras at 128 and chunk 8 only; ends within 45 s on 2 cores.
        json: file for the numbers. markdown: file for the tables.
        suites: which; by default all that are installed and covered by the assets.
        task: of the LIBERO suites.
        assets: official, bundled, or a directory; for the LIBERO suites.
        seconds: for the turns of each LIBERO suite, which end with the turn that is under way then.
    """

    quick: bool = False
    json: Path | None = None
    markdown: Path | None = None
    suites: tuple[str, ...] = ()
    task: int = 0
    assets: str = "bundled"
    seconds: float = 25.0


def main(settings: Settings) -> None:
    """Measure, print the tables, and write the files that were asked for.

    Raises:
        InputError: a suite that was named is unknown, not installed, or not covered by the assets.
    """
    numbers, text = measure(settings)
    print(text)
    if settings.json is not None:
        write_json(settings.json, numbers)
    if settings.markdown is not None:
        write_text(settings.markdown, text)


def chosen_suites(settings: Settings) -> list[str]:
    """Suites to measure; those that cannot run here are left out with a line, unless they were named."""
    named = settings.suites or ((QUICK_SUITE,) if settings.quick else ())
    suites = []
    for suite in named or SUITES:
        try:
            identify(SimulatorConfig(suite, assets=settings.assets))
            suites.append(suite)
        except InputError as error:
            if named:
                raise
            print(f"{suite} is left out: {error}", file=sys.stderr)
    return suites


def measure(settings: Settings) -> tuple[dict[str, Any], str]:
    """The numbers as one flat object, and as Markdown tables."""
    from benchmarks.simulator_cost.calvin import measure_cases
    from benchmarks.simulator_cost.processes import measure_apart
    from benchmarks.simulator_cost.tables import table
    from benchmarks.simulator_cost.turns import (
        ALL_MODES,
        QUICK_MODES,
        STEPS,
        Mode,
        decibels,
        take_turns,
        time_any,
    )  # fmt: skip

    modes, sizes = (QUICK_MODES, (128,)) if settings.quick else (ALL_MODES, (128, 224))
    headline = Mode(2, 8)
    numbers: dict[str, Any] = {"assets": settings.assets, "task": settings.task, "steps_a_turn": STEPS}
    steps, costs, others, calvin = [], [], [], []
    for suite in chosen_suites(settings):
        if suite in CALVIN_SUITES:
            for case, measured in measure_cases(suite).items():
                numbers |= {f"{suite}.{case}.{name}": value for name, value in measured.items()}
                calvin.append([suite, case, *(measured.get(name, "") for name in CALVIN_COLUMNS)])
            continue
        if suite not in LIBERO_SUITES:
            times = {chunk: time_any(suite, settings.assets, chunk, 80 if settings.quick else 400) for chunk in (8, 1)}
            for chunk, measured in times.items():
                others.append([suite, chunk, measured["fast"], measured["physics"]])
                numbers |= {f"{suite}.chunk_{chunk}.ms_{name}": value for name, value in measured.items()}
            continue
        seconds = 12.0 if settings.quick else settings.seconds
        found = take_turns(suite, settings.task, settings.assets, sizes, modes, seconds, 3 if settings.quick else 2)
        ms, fast = found.milliseconds, found.squared_error["fast"]
        physics = ms["physics", 128, headline]
        for size in sizes:
            for mode in modes:
                stock, ours, alone = ms["stock", size, mode], ms["fast", size, mode], ms["physics", 128, mode]
                reference = ms.get(("reference", size, mode), "")
                row = f"{suite}.{mode.cameras}x{size}.chunk_{mode.chunk}"
                numbers |= {f"{row}.ms_stock": stock, f"{row}.ms_fast": ours}
                steps.append([
                    suite, f"{mode.cameras} x {size}", mode.chunk, stock, reference, ours, alone,
                    stock / ours, ours / alone,
                ])  # fmt: skip
        numbers |= {
            f"{suite}.speedup_vs_stock": ms["stock", 128, headline] / ms["fast", 128, headline],
            f"{suite}.cost_over_physics": ms["fast", 128, headline] / physics,
            f"{suite}.image_psnr_db": decibels(float(fast.mean())),
            f"{suite}.image_psnr_db_scene": decibels(float(fast[0])),
            f"{suite}.image_psnr_db_wrist": decibels(float(fast[1])),
            f"{suite}.reference_speedup_vs_stock": ms["stock", 128, headline] / ms["reference", 128, headline],
            f"{suite}.reference_image_error": float(found.squared_error["reference"].max()),
            f"{suite}.reference_state_error": found.state_error["reference"],
            f"{suite}.fast_state_error": found.state_error["fast"],
            f"{suite}.ms_physics": physics,
            f"{suite}.turns": found.turns,
        }
        psnr = numbers[f"{suite}.image_psnr_db"]
        for case in () if settings.quick else ("stock", "reference", "fast", "none"):
            apart = measure_apart(suite, settings.task, settings.assets, case)
            numbers |= {f"{suite}.{case}.{name}": value for name, value in apart.items()}
            quality = {"stock": "", "reference": "same", "fast": psnr, "none": ""}[case]
            costs.append([suite, case, *apart.values(), quality])
    numbers |= worst(numbers)
    text = ""
    if steps:
        head = ["suite", "cameras", "chunk", "stock ms", "reference ms", "fast ms", "physics ms", "stock / fast"]
        text += table([*head, "fast / physics"], steps)
    if costs:
        head = ["suite", "case", "start s", "reset s", "private MiB", "resident MiB", "MiB a further task"]
        text += "\n" + table([*head, "new task s", "task again s", "PSNR dB"], costs)
    if others:
        text += "\n" + table(["suite", "chunk", "fast ms", "without cameras ms"], others)
    if calvin:
        text += "\n" + table(["suite", "case", *CALVIN_COLUMNS], calvin)
    return numbers, text


def worst(numbers: dict[str, Any]) -> dict[str, float]:
    """The headline numbers over all suites that were measured: each the least favourable."""
    pick = {
        "speedup_vs_stock": min, "cost_over_physics": max, "image_psnr_db": min, "reference_speedup_vs_stock": min,
        "reference_image_error": max, "reference_state_error": max, "fast_state_error": max,
    }  # fmt: skip
    found = {}
    for name, choose in pick.items():
        values = [value for key, value in numbers.items() if key.split(".", 1)[1:] == [name]]
        if values:
            found[name] = choose(values)
    return found


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    run_job(main, Settings)
