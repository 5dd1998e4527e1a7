"""A small proof whose jobs have run: what they leave, without running them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.rows import proof_rows
from avavla_ray.evaluation.proofs.step import Inside, Play, Proof, Step
from avavla_ray.evaluation.proofs.targets import GainAtLeast, IntervalsApart, SuccessBetween
from avavla_ray.evaluation.results import summarise

PPO = Step("ppo", "PPO", "ppo_libero", (), "checkpoint/manifest.json")
BEFORE = Step("before", "evaluation", "evaluate", (), "table.md")
AFTER = Step("after", "evaluation", "evaluate", ("--checkpoint", Inside("ppo/checkpoint")), "table.md")
PROOF = Proof(
    "gain", "PPO helps.", (BEFORE, PPO, AFTER), (Play("BC", "before"), Play("PPO", "after", against="BC")),
    (SuccessBetween("BC", 0.1, 0.6), GainAtLeast("PPO", "BC", 0.25), IntervalsApart("PPO", "BC")),
)  # fmt: skip
ASKED = {"seed": 3, "assets": "bundled", "render": "fast"}
COMMAND = "python jobs/prove.py gain --seed 3"


def played(folder: Path, won: int, *, depth: int = 5, steps: int = 5, path: str = "ppo/checkpoint") -> None:
    """An evaluation as jobs/evaluate.py leaves it: 40 episodes, the first `won` of them successes."""
    setting = ExitSetting(fixed_depth=depth)
    records = [EpisodeRecord(setting.label, 0, n, n < won, 16, [steps] * 2, [10.0, 12.0]) for n in range(40)]
    told = {"commit": "c0ffee", "deviations": ["render fast instead of reference"], "simulator": {}}
    result = summarise(
        setting, records, {0: "reach"}, suite="libero_object", assets="bundled", render="fast", provenance=told,
        checkpoint_path=path,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{setting.label}.json").write_text(json.dumps(result))
    (folder / "run.json").write_text('{"job": "evaluate", "run_id": "x", "finished": null}')
    (folder / "table.md").write_text("a table\n")
    (folder / "videos").mkdir(exist_ok=True)
    (folder / f"videos/PPO_task0_{setting.label}.mp4").write_bytes(b"film")


def finished(folder: Path, *, before: int = 12, after: int = 36) -> Notes:
    """The folder of PROOF after its chain."""
    path = str(folder / "ppo/checkpoint")
    played(folder / "before", before, path=path)
    played(folder / "after", after, path=path)
    (folder / "ppo/checkpoint").mkdir(parents=True)
    (folder / "ppo/checkpoint/manifest.json").write_text("{}")
    (folder / "ppo/summary.json").write_text(json.dumps({"checkpoint": path}))
    (folder / "ppo/curve.jsonl").write_text('{"total/env_steps": 1}\n')
    (folder / "ppo/learning_curve.png").write_bytes(b"picture")
    notes = Notes(folder)
    for step in PROOF.steps:
        with notes.running(step, "c0ffee", "2 x processor"):
            pass
        notes.steps[step.key]["seconds"] = 60.0
    return notes


def rows_of(folder: Path, **won: int) -> dict[str, dict[str, Any]]:
    rows = proof_rows(PROOF, finished(folder, **won), command=COMMAND, asked=ASKED)
    return {row["row"]: row for row in rows}
