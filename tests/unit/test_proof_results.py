"""What a proof says: rows with intervals, comparisons and verdicts, and the files of its result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import ChainRecord, summarise_chains
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.proofs.cloning_curve import cloning_points, keep_cloning_curve, plot_cloning
from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.result import write_result
from avavla_ray.evaluation.proofs.rows import proof_rows
from avavla_ray.evaluation.proofs.step import Proof, Step
from avavla_ray.evaluation.proofs.table import all_tables
from avavla_ray.evaluation.proofs.targets import (
    BY_ESTIMATE,
    MISSED,
    REACHED,
    IntervalsApart,
    LatentStepsAtMost,
    LengthAtLeast,
    LongerThan,
    SuccessAtLeast,
    SuccessInside,
)
from avavla_ray.evaluation.results import summarise
from tests.support.proofs import ASKED, BEFORE, COMMAND, PROOF, finished, played, rows_of


def test_rows_have_the_keys_that_others_rely_on(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    documented = {
        "name", "command", "successes", "episodes", "success_rate", "ci95", "mean_latent_steps", "ms_per_decision",
        "seed", "assets", "render", "commit", "wall_minutes", "machine",
    }  # fmt: skip
    for row in rows.values():
        assert documented <= row.keys()
    ppo = rows["PPO"]
    assert (ppo["name"], ppo["successes"], ppo["episodes"], ppo["success_rate"]) == ("gain/PPO", 36, 40, 0.9)
    assert (ppo["mean_latent_steps"], ppo["ms_per_decision"], ppo["commit"]) == (5.0, 11.0, "c0ffee")
    assert (rows["BC"]["wall_minutes"], ppo["wall_minutes"]) == (1.0, 2.0), "of what the row is made of"
    assert (ppo["seed"], ppo["assets"], ppo["machine"]) == (3, "bundled", "2 x processor")


def test_rows_are_compared_pair_by_pair_and_judged(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    ppo = rows["PPO"]
    assert ppo["difference"] == pytest.approx(0.6)
    assert ppo["pairs"] == 40
    assert ppo["difference_ci95"][0] > 0.4
    assert ppo["p_value"] < 1e-5
    assert "difference" not in rows["BC"]
    assert rows["BC"]["targets"] == []
    assert [each["reached"] for each in ppo["targets"]] == [REACHED, REACHED, REACHED]


def test_a_gain_that_is_too_small_is_missed(tmp_path: Path) -> None:
    ppo = rows_of(tmp_path, before=26, after=32)["PPO"]
    assert [each["reached"] for each in ppo["targets"]] == [MISSED, MISSED, MISSED]


def test_an_evaluation_at_several_settings_is_no_row(tmp_path: Path) -> None:
    notes = finished(tmp_path)
    played(tmp_path / "after", 3, depth=2)
    with pytest.raises(InputError, match="holds 2 results"):
        proof_rows(PROOF, notes, command=COMMAND, asked=ASKED)


def chains_played(folder: Path, lengths: list[int]) -> None:
    records = [
        ChainRecord(n, ["a"] * 5, length, [9] * 5, [5], [8.0], setting="depth_5") for n, length in enumerate(lengths)
    ]
    lost = ChainRecord(len(lengths), ["a"] * 5, error="lost", setting="depth_5")
    result = summarise_chains(
        [*records, lost], suite="calvin_d_chains", render="fast", setting="depth_5", title="fixed depth 5",
        exit_threshold=None, fixed_depth=5, provenance={"commit": "c0ffee", "simulator": {}},
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "depth_5.json").write_text(json.dumps(result))
    lines = ['{"evaluates": {}}', *(json.dumps(asdict(record)) for record in [*records, lost]), '{"torn']
    (folder / "chains.jsonl").write_text("\n".join(lines))
    (folder / "table.md").write_text("")


def test_chains_are_compared_by_their_lengths(tmp_path: Path) -> None:
    chains_played(tmp_path / "before", [1] * 100)
    chains_played(tmp_path / "after", [1] * 50 + [3] * 50)
    steps = (BEFORE, Step("after", "", "evaluate", (), "table.md"))
    targets = (LengthAtLeast("BC", 0.9), LengthAtLeast("PPO", 1.95), LengthAtLeast("PPO", 4), LongerThan("PPO", "BC"))
    proof = Proof("chains", "", steps, PROOF.plays, targets)
    notes = Notes(tmp_path)
    for step in steps:
        with notes.running(step, "c", "m"):
            pass
    _, ppo = proof_rows(proof, notes, command=COMMAND, asked=ASKED)
    assert (ppo["average_length"], ppo["successes"], ppo["episodes"], ppo["aborted"]) == (2.0, 100, 100, 1)
    assert (ppo["difference"], ppo["pairs"], ppo["assets"]) == (1.0, 100, "none")
    low, high = ppo["difference_ci95"]
    assert 0.6 < low < 1.0 < high < 1.3
    assert [each["reached"] for each in ppo["targets"]] == [REACHED, BY_ESTIMATE, MISSED, REACHED]
    assert "| 2.00 (" in all_tables([{**ppo, "proof": "chains"}], tmp_path)


def row(success: int, of: int = 100, steps: float = 5.0) -> dict[str, Any]:
    records = [EpisodeRecord("depth_5", 0, n, n < success, 1, [1], [1.0]) for n in range(of)]
    return {**summarise(ExitSetting(fixed_depth=5), records, {0: ""}), "mean_latent_steps": steps}


@pytest.mark.parametrize(("success", "reached"), [(95, REACHED), (87, BY_ESTIMATE), (84, MISSED)])
def test_a_level_is_reached_by_the_interval_or_by_the_estimate_only(success: int, reached: str) -> None:
    verdict = SuccessAtLeast("BC", 0.85).judge({"BC": row(success)})
    assert verdict.reached == reached
    assert verdict.why.startswith(f"{success}.0% (")


def test_half_the_steps_and_success_as_before() -> None:
    rows = {"fixed": row(90), "half": row(88, steps=2.5), "more": row(70, steps=2.6), "none": row(0, 0)}
    assert LatentStepsAtMost("half", "fixed", 0.5).judge(rows).reached == REACHED
    assert LatentStepsAtMost("more", "fixed", 0.5).judge(rows).reached == MISSED
    assert SuccessInside("half", "fixed").judge(rows).reached == REACHED
    assert SuccessInside("more", "fixed").judge(rows).reached == MISSED
    assert SuccessAtLeast("none", 0.0).judge(rows).reached == MISSED
    assert IntervalsApart("half", "more").judge(rows).reached == REACHED
    assert IntervalsApart("more", "half").judge(rows).reached == MISSED


class Metric(NamedTuple):
    step: int
    value: float
    timestamp: int


class Store:
    """MLflow's client, of which only histories are asked."""

    def get_metric_history(self, run: str, name: str) -> list[Metric]:
        assert run == "r"
        again = [Metric(20, 0.3, 7), Metric(10, 0.5, 1), Metric(20, 0.4, 2)]  # step 20 was done again after a kill
        return {"train/l1": again, "val/l1": [Metric(20, 0.6, 9)]}.get(name, [])


def test_a_cloning_curve_has_each_step_once_and_is_drawn(tmp_path: Path) -> None:
    points = cloning_points(Store(), "r")
    assert points == [{"step": 10, "train/l1": 0.5}, {"step": 20, "train/l1": 0.3, "val/l1": 0.6}]
    plot_cloning(tmp_path / "x.png", points, "cloning")
    assert imageio.imread(tmp_path / "x.png").std() > 0


def test_a_store_that_is_away_costs_the_curve_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.json").write_text('{"run": "0123456789abcdef"}')
    keep_cloning_curve(tmp_path, f"sqlite:///{tmp_path}/empty.db")
    assert "no learning curve" in capsys.readouterr().out
    assert not (tmp_path / "learning_curve.png").exists()


def test_a_result_holds_what_is_published_with_relative_paths(tmp_path: Path) -> None:
    result = write_result(PROOF, finished(tmp_path / "gain-3"), command=COMMAND, asked=ASKED)
    found = {str(path.relative_to(result)) for path in result.rglob("*") if path.is_file()}
    assert found == {
        "row.json", "table.md", "before/depth_5.json", "before/table.md", "after/depth_5.json", "after/table.md",
        "ppo/summary.json", "ppo/curve.jsonl", "ppo/learning_curve.png", "videos/success_PPO_task0_depth_5.mp4",
    }  # fmt: skip
    assert json.loads((result / "after/depth_5.json").read_text())["checkpoint_path"] == "ppo/checkpoint"
    assert json.loads((result / "ppo/summary.json").read_text()) == {"checkpoint": "ppo/checkpoint"}
    assert "**missed**" not in (result / "table.md").read_text()
    again = write_result(PROOF, Notes(tmp_path / "gain-3"), command=COMMAND, asked=ASKED)
    assert {str(path.relative_to(again)) for path in again.rglob("*") if path.is_file()} == found
