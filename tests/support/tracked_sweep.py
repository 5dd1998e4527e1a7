"""A sweep in MLflow as jobs log it, from episodes that were drawn instead of played."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import summarise
from avavla_ray.files import write_json
from avavla_ray.tracking import track

SETTINGS = (
    *(ExitSetting(threshold) for threshold in (0.3, 0.55, 0.75, 0.95)),
    ExitSetting(0.55, families=(("open", 0.3),)),
    ExitSetting(fixed_depth=1),
    ExitSetting(fixed_depth=5),
)


def drawn_records(setting: ExitSetting, skill: float, states: int = 10, tasks: int = 2) -> list[EpisodeRecord]:
    """Episodes whose success rises with `skill` and with thinking."""
    random = np.random.default_rng([int(1000 * skill), *setting.label.encode()])
    mean = setting.fixed_depth if setting.exit_threshold is None else 1 + 3.5 * setting.exit_threshold**2
    records = []
    for task in range(tasks):
        for state in range(states):
            count = int(random.integers(12, 24))
            steps = np.full(count, mean)
            if setting.fixed_depth is None:
                steps = np.clip(np.rint(random.normal(mean, 0.8, count)), 1, 5)
            took = [int(each) for each in steps]
            won = bool(random.random() < skill + 0.08 * mean)
            times = (6 + 4 * np.array(took) + random.normal(0, 0.2, count)).round(3).tolist()
            records.append(EpisodeRecord(setting.label, task, state, won, 8 * count, took, times))
    return records


def log_sweep(
    uri: str, folder: Path, key: str = "sweep", *, label: str = "PPO", suite: str = "libero_object",
    skill: float = 0.5, settings: Sequence[ExitSetting] = SETTINGS, **result_fields: Any,
) -> tuple[str, list[dict[str, Any]]]:  # fmt: skip
    """Log a sweep and its trials; the id of the sweep's run, and the results."""
    results = []
    with track(f"sweep {key}", kind="sweep", uri=uri, run_key=key) as sweep:
        for setting in settings:
            result = summarise(
                setting, drawn_records(setting, skill), {0: "pick up the soup", 1: "open the drawer"},
                label=label, suite=suite, render="fast", **result_fields,
            )  # fmt: skip
            results.append(result)
            path = folder / key / f"{setting.label}.json"
            write_json(path, result)
            with track(
                f"{label} {setting.title}", kind="evaluation", uri=uri, run_key=f"{key}/{suite}/{setting.label}",
                parent=sweep.run_id, params={"exit_setting": setting.title, "suite": suite},
                tags={"label": label, "verdict": "complete"},
            ) as run:  # fmt: skip
                names = ("success_rate", "mean_latent_steps", "ms_mean", "episodes")
                run.log_metrics({name: result[name] for name in names})
                run.log_file(path)
    return sweep.run_id, results
