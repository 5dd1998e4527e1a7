import json

import pytest
import tyro

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, exit_settings
from avavla_ray.evaluation.results import Ledger, markdown_table, summarise
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
    assert result["tasks"] == [
        {"task": 0, "instruction": "pick up the soup", "episodes": 2, "successes": 1, "aborted": 1}
    ]
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
