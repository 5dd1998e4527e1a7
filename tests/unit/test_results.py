import json

import pytest
import tyro

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, exit_settings
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.results import (
    Ledger,
    markdown_table,
    order,
    outcomes_of,
    setting_of,
    steps_by_phase,
    summarise,
)
from avavla_ray.policy.config import preset, without_adaptive
from jobs.evaluate import Settings

SETTING = ExitSetting(exit_threshold=0.55)


def record(state, success, steps, milliseconds, error=None, setting=SETTING, task=0):
    return EpisodeRecord(setting.label, task, state, success, 8 * len(steps), steps, milliseconds, error)


RECORDS = [
    record(0, True, [1, 3], [10.0, 30.0]),
    record(1, False, [5, 5, 5], [50.0, 50.0, 50.0]),
    record(2, False, [], [], error="SimulatorFailure: diverged"),
    record(0, True, [2], [7.0], setting=ExitSetting(fixed_depth=2)),
]


def test_summary_counts_only_its_setting():
    result = summarise(SETTING, RECORDS, {0: "pick up the soup"}, suite="libero_object")
    assert (result["episodes"], result["successes"]) == (2, 1)
    assert result["success_rate"] == pytest.approx(1 / 2)
    assert result["mean_latent_steps"] == pytest.approx((1 + 3 + 15) / 5)
    assert result["exit_histogram"] == {"1": 1, "3": 1, "5": 3}
    assert result["ms_mean"] == pytest.approx(38.0)
    assert result["ms_p90"] == pytest.approx(50.0)
    assert result["aborted_episodes"] == 1
    assert result["aborted"] == [{"task": 0, "initial_state": 2, "error": "SimulatorFailure: diverged"}]
    assert result["quarantined_tasks"] == {}
    assert (result["ms_p50"], result["ms_p99"]) == (50.0, 50.0)
    (task,) = result["tasks"]
    assert task == {
        "task": 0, "instruction": "pick up the soup", "episodes": 2, "successes": 1, "aborted": 1,
        "ci95": list(wilson(1, 2)), "mean_latent_steps": 3.8, "ms_mean": 38.0,
        "exit_histogram": {"1": 1, "3": 1, "5": 3}, "succeeded_from": [0], "failed_from": [1],
    }  # fmt: skip
    json.dumps(result, allow_nan=False)


def test_nothing_finished_is_not_zero():
    result = summarise(ExitSetting(fixed_depth=4), RECORDS, {0: "x"})
    assert result["success_rate"] is None
    assert "| -" in markdown_table([result])


def test_a_quarantined_task_is_named_and_its_episodes_are_neither_failed_nor_successes():
    reason = "task 1 is quarantined: its simulator died 3 times in a row"
    lost = [EpisodeRecord(SETTING.label, 1, state, False, 0, error=reason, quarantined=True) for state in range(4)]
    result = summarise(SETTING, [RECORDS[0], *lost], {0: "x", 1: "y"})
    assert (result["episodes"], result["success_rate"], result["aborted_episodes"]) == (1, 1.0, 4)
    assert result["quarantined_tasks"] == {"1": reason}
    assert [(task["episodes"], task["aborted"]) for task in result["tasks"]] == [(1, 0), (0, 4)]
    assert "1/1 (4 aborted, task(s) 1 quarantined)" in markdown_table([result])
    nothing = summarise(SETTING, lost, {1: "y"})
    assert nothing["success_rate"] is None
    assert "0/0 (4 aborted" in markdown_table([nothing])


def test_aborted_episodes_are_played_again_when_resuming(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl", {}, resume=False)
    for entry in RECORDS[:3]:
        ledger.add(entry)
    again = Ledger(tmp_path / "l.jsonl", {}, resume=True)
    assert list(again.records.values()) == RECORDS[:2]
    assert (SETTING.label, 0, 2) not in again


def test_table_names_checkpoints_and_settings():
    results = [summarise(s, RECORDS, {0: "x"}) for s in (SETTING, ExitSetting(fixed_depth=2))]
    lines = markdown_table(results, ["BC", "PPO"]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["BC", "0.55", "50.0%"]
    assert "fixed depth 2" in lines[3]
    assert len({len(line) for line in lines}) == 1


def test_ledger_resumes_past_a_half_written_line(tmp_path):
    path = tmp_path / "episodes.jsonl"
    ledger = Ledger(path, {"checkpoint": "abc"}, resume=False)
    ledger.add(RECORDS[0])
    ledger.add(RECORDS[1])
    path.write_text(path.read_text()[:-20])
    again = Ledger(path, {"checkpoint": "abc"}, resume=True)
    assert list(again.records.values()) == [RECORDS[0]]
    assert (SETTING.label, 0, 0) in again
    again.add(RECORDS[1])
    assert len(Ledger(path, {"checkpoint": "abc"}, resume=True).records) == 2


def test_ledger_of_another_checkpoint_is_refused(tmp_path):
    Ledger(tmp_path / "l.jsonl", {"checkpoint": "abc"}, resume=False)
    with pytest.raises(InputError, match="another evaluation"):
        Ledger(tmp_path / "l.jsonl", {"checkpoint": "def"}, resume=True)


def test_without_resume_finished_episodes_are_not_thrown_away(tmp_path):
    Ledger(tmp_path / "l.jsonl", {}, resume=False).add(RECORDS[0])
    with pytest.raises(InputError, match="add --resume"):
        Ledger(tmp_path / "l.jsonl", {}, resume=False)
    assert len(Ledger(tmp_path / "l.jsonl", {}, resume=True).records) == 1


@pytest.mark.parametrize(
    ("thresholds", "depths", "message"),
    [
        ((1.2,), (), r"exit threshold 1.2 is outside \[0, 1\]"),
        ((), (9,), r"latent depth 9 is outside 0..5"),
        ((), (), "no exit setting"),
        ((0.551,), (), "0.551: give a multiple of 0.01"),
    ],
)
def test_wrong_settings_are_refused(thresholds, depths, message):
    with pytest.raises(InputError, match=message):
        exit_settings(thresholds, depths, preset("tiny"))


def test_a_policy_without_a_latent_loop_is_evaluated_at_depth_0_only():
    policy = without_adaptive(preset("tiny"))
    for thresholds in ((0.5,), (1.0, 0.3)):
        with pytest.raises(InputError, match="no latent loop .* --thresholds --depths 0"):
            exit_settings(thresholds, (0,), policy)
    # The command line that the message asks for.
    job = tyro.cli(Settings, args=["--checkpoint", "somewhere", "--thresholds", "--depths", "0"])
    assert [s.label for s in exit_settings(job.thresholds, job.depths, policy)] == ["depth_0"]


def test_settings_keep_their_order_and_fold_duplicates():
    settings = exit_settings((0.5, 0.3, 0.5), (0, 5), preset("tiny"))
    assert [s.label for s in settings] == ["threshold_0.50", "threshold_0.30", "depth_0", "depth_5"]


def test_steps_by_phase_are_means_of_the_decisions_in_each_tenth():
    long = record(0, True, list(range(20)), [1.0] * 20)
    assert steps_by_phase([long]) == [0.5 + 2 * tenth for tenth in range(10)]
    short = record(1, True, [5, 3], [1.0] * 2)  # its decisions begin the first and the sixth tenth
    assert steps_by_phase([short]) == [5, None, None, None, None, 3, None, None, None, None]
    both = steps_by_phase([long, short])
    assert both[0] == pytest.approx((0 + 1 + 5) / 3)
    assert both[1] == 2.5
    assert summarise(SETTING, [long, short], {0: "x"})["steps_by_phase"] == both


def test_thresholds_by_step_and_by_family_come_back_from_json():
    settings = [
        ExitSetting((0.3, 0.4, 0.5, 0.6), families=(("open", 0.6), ("put", (0.1, 0.2, 0.3, 0.4)))),
        ExitSetting(0.55),
        ExitSetting(fixed_depth=5),
    ]
    results = [json.loads(json.dumps(summarise(each, [], {}), allow_nan=False)) for each in settings]
    assert [setting_of(result) for result in results] == settings
    assert [result["setting"] for result in results] == [setting.label for setting in settings]
    shuffled = [results[1], results[2], results[0]]
    assert sorted(shuffled, key=order) == results
    table = markdown_table(results)
    assert "0.30/0.40/0.50/0.60, open 0.60, put 0.10/0.20/0.30/0.40" in table


def test_results_of_older_versions_are_still_read():
    result = summarise(SETTING, RECORDS, {0: "x"})
    for name in ("setting", "title", "families", "ms_p99", "steps_by_phase"):
        del result[name]
    result["suite"] = "libero_object"
    assert outcomes_of(result) == {("libero_object", 0, 0): True, ("libero_object", 0, 1): False}
    del result["tasks"][0]["succeeded_from"]
    with pytest.raises(InputError, match="libero_object at 0.55 is of an older version"):
        outcomes_of(result)
    assert setting_of(result) == SETTING
    assert "| -" in markdown_table([result])


def test_ledgers_without_scores_are_still_read(tmp_path):
    path = tmp_path / "episodes.jsonl"
    ledger = Ledger(path, {}, resume=False)
    ledger.add(EpisodeRecord(SETTING.label, 0, 0, True, 8, [2], [7.0], scores=[[0.1234, 0.6]]))
    kept = Ledger(path, {}, resume=True).records[SETTING.label, 0, 0]
    assert kept.scores == [[0.1234, 0.6]]
    lines = path.read_text().splitlines()
    old = {name: value for name, value in json.loads(lines[1]).items() if name != "scores"}
    path.write_text("\n".join([lines[0], json.dumps(old)]) + "\n")
    assert Ledger(path, {}, resume=True).records[SETTING.label, 0, 0].scores == []
