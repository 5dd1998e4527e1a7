"""jobs/compare.py on runs as other jobs log them."""

from __future__ import annotations

import csv
import re

import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.comparison import Selection, by_label, newest, over_suites, paired_table
from avavla_ray.evaluation.paired import mcnemar
from avavla_ray.evaluation.results import setting_of
from avavla_ray.tracking import children_of, find_runs, track
from jobs.compare import Settings, main
from tests.support.tracked_sweep import SETTINGS, drawn_records, log_sweep

FEW = (SETTINGS[0], SETTINGS[2], SETTINGS[-1])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two sweeps of two checkpoints on one suite, one of them on a second suite too."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    _, ppo = log_sweep(uri, folder, "ppo", settings=FEW)
    _, bc = log_sweep(uri, folder, "bc", label="BC", skill=0.2, settings=FEW)
    _, goal = log_sweep(uri, folder, "goal", suite="libero_goal", settings=FEW[:2])
    return uri, {"ppo": ppo, "bc": bc, "goal": goal}


def test_two_checkpoints_are_compared(store, tmp_path, capsys):
    uri, results = store
    main(Settings(suite=("libero_object",), pair=("PPO", "BC"), output=tmp_path, tracking_uri=uri))
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["BC"] * 3 + ["PPO"] * 3
    assert {path.name for path in tmp_path.iterdir()} == {
        "success_against_latent_steps.png", "table.md", "pairs.md", "threshold_table.md", "threshold_table.csv",
        "threshold_table.tex", "thinking_BC_libero_object.png", "thinking_PPO_libero_object.png",
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "threshold_table.csv").open()))
    assert [float(row["libero_object_success"]) for row in rows if row["checkpoint"] == "PPO"] == [
        result["success_rate"] for result in results["ppo"]
    ]
    said = capsys.readouterr().out
    expected = mcnemar(drawn_records(FEW[0], 0.5), drawn_records(FEW[0], 0.2))
    assert f"{expected.p_value:.4f}" in (tmp_path / "pairs.md").read_text().splitlines()[2]
    assert said.count("PPO, 0.30") == 1
    link = re.search(r"compare-runs\?runs=%5B(\S+?)%5D", said)
    assert link is not None
    assert len(link[1].split("%2C")) == 6


def test_a_sweep_is_its_trials_and_nothing_else(store, tmp_path, capsys):
    uri, _ = store
    main(Settings(sweep="bc", output=tmp_path, tracking_uri=uri))
    assert (tmp_path / "table.md").read_text().count("| BC") == 3
    assert "PPO" not in capsys.readouterr().out
    with pytest.raises(InputError, match="no sweep 'bd'.*known: goal, bc, ppo"):
        main(Settings(sweep="bd", output=tmp_path, tracking_uri=uri))


def test_of_several_suites_the_mean_is_drawn_where_all_were_played(store):
    _, results = store
    groups = by_label([*results["ppo"], *results["bc"], *results["goal"]])
    means = over_suites(groups)
    assert [setting_of(mean) for mean in means["PPO"]] == list(FEW[:2])
    assert means["BC"] == []
    pairs = zip(results["ppo"], results["goal"], strict=False)
    assert [mean["success_rate"] for mean in means["PPO"]] == pytest.approx(
        [(a["success_rate"] + b["success_rate"]) / 2 for a, b in pairs]
    )


def test_settings_and_points_are_paired(store):
    _, results = store
    groups = by_label([*results["ppo"], *results["bc"]])
    for pair in (("0.3", "depth_5"), ("0.30", "fixed depth 5"), ("threshold_0.30", "K=5")):
        lines = paired_table(groups, pair).splitlines()
        assert [line.split("|")[1].strip() for line in lines[2:]] == ["BC, 0.30", "PPO, 0.30"]
    lines = paired_table(groups, ("PPO:0.30", "BC:depth_5")).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["PPO, 0.30", "BC, fixed depth 5", "20"]
    with pytest.raises(InputError, match="--pair 'PPP': give a label, .* known: BC, PPO, 0.30"):
        paired_table(groups, ("PPP", "BC"))


def test_other_conditions_are_noted(store):
    _, results = store
    other = [{**result, "label": "slow", "render": "reference"} for result in results["ppo"]]
    text = paired_table(by_label([*results["ppo"], *other]), ("PPO:0.30", "slow:0.30"))
    assert "Note: on libero_object render differs: fast for PPO, 0.30, reference for slow, 0.30" in text
    assert "1.0000" in text


def test_pairs_need_common_initial_states(store):
    _, results = store
    goal = [{**result, "label": "other"} for result in results["goal"]]
    with pytest.raises(InputError, match="no initial state was played by both"):
        paired_table(by_label([*results["ppo"], *goal]), ("PPO", "other"))


def test_the_newest_whole_run_counts(store, tmp_path):
    uri, _ = store
    with track("sweep again", kind="sweep", uri=uri, run_key="again") as sweep:
        for verdict, rate in (("complete", 0.1), ("complete", 0.2), ("hopeless", 0.0)):
            with track(
                "PPO 0.30", kind="evaluation", uri=uri, parent=sweep.run_id, run_key=f"again/{verdict}",
                params={"exit_setting": "0.30", "suite": "libero_object"}, tags={"label": "PPO", "verdict": verdict},
            ) as run:  # fmt: skip
                run.log_metrics({"success_rate": rate})
    runs = children_of(sweep.run_id, uri=uri)[::-1]
    assert [run.data.metrics["success_rate"] for run in newest(runs, Selection())] == [0.2]
    selected = newest(find_runs(uri=uri, kind="evaluation"), Selection(run_ids=("ppo",)))
    assert len(selected) == len(FEW)
    with pytest.raises(InputError, match="keeps 0 result files instead of one"):
        main(Settings(sweep="again", output=tmp_path, tracking_uri=uri))
