"""From the files of a proof's evaluations to its rows of results/summary.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import LENGTH, mean_interval
from avavla_ray.evaluation.paired import compare_outcomes
from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.step import Play, Proof
from avavla_ray.evaluation.results import outcomes_of

ASKED = ("seed", "assets", "render")  # of the command, where a result does not say


def proof_rows(proof: Proof, notes: Notes, *, command: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One a play, each with its comparison and with the verdicts on the targets, which go with the last row.

    Args:
        command: that repeats the proof. asked: seed, assets and render of it.

    Raises:
        InputError: an evaluation is not there, or does not fit the one that it is compared with.
    """
    results = {play.title: result_of(notes.folder / play.step) for play in proof.plays}
    rows = {
        play.title: _row(proof, play, results, notes, command=command, asked=asked) for play in proof.plays
    }  # fmt: skip
    judged = [{"target": target.text, **asdict(target.judge(rows))} for target in proof.targets]
    for title, row in rows.items():
        row["targets"] = judged if title == proof.plays[-1].title else []
    return list(rows.values())


def result_path(folder: Path) -> Path:
    """The one result file of an evaluation at one exit setting.

    Raises:
        InputError: there is none, or several.
    """
    found = [path for path in sorted(folder.glob("*.json")) if is_result(path)]
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} results of evaluations, not one: remove it and repeat")
    return found[0]


def result_of(folder: Path) -> dict[str, Any]:
    """What is in that file, and where it lies as `folder`."""
    return {**json.loads(result_path(folder).read_text(encoding="utf-8")), "folder": folder}


def is_result(path: Path) -> bool:
    """Whether a JSON file is the result of an exit setting."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(content, dict) and {"exit_threshold", "provenance", "tasks"} <= content.keys()


def _row(
    proof: Proof, play: Play, results: Mapping[str, dict[str, Any]], notes: Notes, *, command: str,
    asked: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    result, steps = results[play.title], proof.needed(play.step)
    told = result["provenance"]
    simulator = told.get("simulator", {})
    chains = "chains" in result
    # Of chains a success is the first task; how many follow is in average_length and in_a_row.
    numbers = result["in_a_row"][0] if chains else result
    return {
        "name": f"{proof.name}/{play.title}",
        "proof": proof.name,
        "row": play.title,
        "command": command,
        "suite": result["suite"],
        "setting": result["title"],
        "successes": numbers["successes"],
        "episodes": numbers["chains" if chains else "episodes"],
        "success_rate": numbers["success_rate"],
        "ci95": numbers["ci95"],
        **({name: result[name] for name in ("average_length", "average_length_ci95", "in_a_row")} if chains else {}),
        "aborted": result["aborted_chains" if chains else "aborted_episodes"],
        "mean_latent_steps": result["mean_latent_steps"],
        "ms_per_decision": result["ms_mean"],
        **(_compared(result, results[play.against], play.against) if play.against else {}),
        "seed": asked["seed"],
        # A suite without assets says none.
        "assets": result.get("assets", simulator.get("assets", "none")),
        "render": result.get("render", asked["render"]),
        "deviations": told.get("deviations", []),
        "commit": told["commit"],
        "commits": notes.ran(steps, "commits"),
        "wall_minutes": round(notes.minutes(steps), 1),
        "minutes_by_step": {step.key: round(notes.minutes((step,)), 1) for step in steps},
        "machine": "; ".join(notes.ran(steps, "machines")),
    }


def _compared(result: dict[str, Any], other: dict[str, Any], title: str) -> dict[str, Any]:
    """Row and other, pair by pair: success in points as a share, or average length in tasks."""
    if "chains" in result:
        mine, theirs = _lengths(result), _lengths(other)
        gains = [mine[number] - theirs[number] for number in mine.keys() & theirs.keys()]
        mean = sum(gains) / len(gains) if gains else None
        ends = mean_interval(gains, -float(LENGTH), float(LENGTH))
        return {"against": title, "pairs": len(gains), "difference": mean, "difference_ci95": list(ends)}
    paired = compare_outcomes(outcomes_of(result), outcomes_of(other))
    return {
        "against": title, "pairs": paired.pairs, "difference": paired.difference,
        "difference_ci95": list(paired.ci95), "p_value": paired.p_value,
    }  # fmt: skip


def _lengths(result: dict[str, Any]) -> dict[int, int]:
    """Tasks in a row by sequence, from the ledger: results hold sums only."""
    lengths = {}
    for line in (result["folder"] / "chains.jsonl").read_text(encoding="utf-8").splitlines()[1:]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # what a killed process was writing; it was played again
            continue
        if record["error"] is None and record["setting"] == result["setting"]:
            lengths[record["sequence"]] = record["completed"]
    return lengths
