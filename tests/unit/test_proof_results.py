"""What a proof publishes: rows with intervals and verdicts, files that name no machine, and the tables of results/."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import ChainRecord, summarise_chains
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.proofs import private
from avavla_ray.evaluation.proofs.catalogue import PROOFS
from avavla_ray.evaluation.proofs.cloning_curve import cloning_points, keep_cloning_curve, plot_cloning
from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.private import check_public, cleaned
from avavla_ray.evaluation.proofs.publish import check_place, merged, publish
from avavla_ray.evaluation.proofs.result import write_result
from avavla_ray.evaluation.proofs.rows import proof_rows
from avavla_ray.evaluation.proofs.step import Inside, Play, Proof, Step
from avavla_ray.evaluation.proofs.table import BEGIN, END, NOT_RUN, all_tables, read_rows, split_readme, write_tables
from avavla_ray.evaluation.proofs.targets import (
    BY_ESTIMATE,
    MISSED,
    REACHED,
    GainAtLeast,
    IntervalsApart,
    LatentStepsAtMost,
    LengthAtLeast,
    LongerThan,
    SuccessAtLeast,
    SuccessBetween,
    SuccessInside,
)
from avavla_ray.evaluation.results import summarise

ROOT = Path(__file__).resolve().parents[2]
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


def test_publishing_replaces_the_rows_of_its_proof_and_seed_only(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "README.md").write_text(f"# Ours\n\n{BEGIN}\nyesterday\n{END}\n\nThe end.\n")
    old = {**rows_of(tmp_path / "old")["PPO"], "success_rate": 0.111, "wall_minutes": 777.0}
    others = [{**old, "proof": "bc_object", "name": "bc_object/BC"}, {**old, "seed": 2}, old]
    (results / "summary.json").write_text(json.dumps(others))
    result = write_result(PROOF, finished(tmp_path / "gain-3"), command=COMMAND, asked=ASKED)
    assert publish(result, results) == results / "gain-3"
    rows = read_rows(results / "summary.json")
    kept = [(each["proof"], each["seed"], each["row"], each["success_rate"]) for each in rows]
    assert kept == [
        ("bc_object", 3, "PPO", 0.111), ("gain", 2, "PPO", 0.111), ("gain", 3, "BC", 0.3), ("gain", 3, "PPO", 0.9),
    ]  # fmt: skip
    text = (results / "README.md").read_text()
    assert text.startswith("# Ours\n")
    assert text.endswith("\n\nThe end.\n")
    assert "yesterday" not in text
    assert "![gain-3/ppo/learning_curve.png](gain-3/ppo/learning_curve.png)" in text
    assert "+60.0 points" in text
    publish(result, results)
    assert (read_rows(results / "summary.json"), (results / "README.md").read_text()) == (rows, text)


keys = st.tuples(st.sampled_from("abc"), st.integers(0, 2))


@given(st.lists(keys), keys, st.integers(1, 3))
def test_no_row_of_another_proof_or_seed_is_lost(before: list[tuple[str, int]], mine: tuple[str, int], n: int) -> None:
    old = [{"proof": proof, "seed": seed, "number": i} for i, (proof, seed) in enumerate(before)]
    new = [{"proof": mine[0], "seed": mine[1], "number": -i} for i in range(1, n + 1)]
    rows = merged(old, new)
    assert [row for row in rows if (row["proof"], row["seed"]) == mine] == new
    others = [row for row in old if (row["proof"], row["seed"]) != mine]
    assert [row for row in rows if row not in new] == sorted(others, key=lambda row: (row["proof"], row["seed"]))
    assert merged(rows, new) == rows


def test_a_proof_that_nobody_has_run_says_so_and_a_missed_target_is_not_hidden(tmp_path: Path) -> None:
    text = all_tables([], tmp_path)
    assert text.count(f"`: {NOT_RUN}.") == len(PROOFS)
    missed = rows_of(tmp_path, before=26, after=32)["PPO"]
    assert all_tables([missed], tmp_path).count("**missed**") == 2 * len(missed["targets"])


def test_the_tables_of_the_repository_are_those_of_its_summary() -> None:
    """Otherwise: python -m avavla_ray.evaluation.proofs.table results"""
    results = ROOT / "results"
    head, tail = split_readme(results / "README.md")
    tables = all_tables(read_rows(results / "summary.json"), results)
    assert (results / "README.md").read_text() == f"{head}{BEGIN}\n\n{tables}\n{END}{tail}"


def test_the_repository_publishes_no_path_of_a_machine() -> None:
    for path in (path for path in (ROOT / "results").rglob("*") if path.is_file()):
        check_public(path)


def test_results_without_a_place_for_tables_are_refused(tmp_path: Path) -> None:
    check_place(tmp_path / "not there yet")
    (tmp_path / "README.md").write_text("# Ours\n")
    with pytest.raises(InputError, match="lacks the lines <!-- proofs -->"):
        check_place(tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / "summary.json").write_text('{"proof": 1}')
    with pytest.raises(InputError, match="no list of rows"):
        check_place(tmp_path)
    (tmp_path / "summary.json").write_text("[")
    with pytest.raises(InputError, match="not readable"):
        write_tables(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "PROOF/bc/checkpoint"}', '{"a": "bc/checkpoint"}'),
        ('{"a": "PROOF"}', '{"a": "."}'),
        ("CWD/runs/x, and PROOF-2/y", "runs/x, and proof-2/y"),
        ("error in /usr/lib/python3/x.py at line 1", "error in <path>/x.py at line 1"),
        ('"failed:\\n/data/sets/x\\n/data/x"', '"failed:\\nx\\n<path>/x"'),
        ("sqlite:////data/sets/runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("/mnt/data/sets/x", "<path>/x"),
        ("https://a.org/b/c, s3://bucket/runs/x, 3 m/s, a/b/c, ../x/y", None),
        ("actor died (ip=10.0.0.7)", "actor died (ip=<host>)"),
        ("on box-17: dead; mybox-17x", "on <host>: dead; mybox-17x"),
    ],
)
def test_paths_become_relative(text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box-17")
    place, here = Path("/data/sets/proof"), Path("/data/sets")
    text = text.replace("PROOF", str(place)).replace("CWD", str(here))
    assert cleaned(text, (place, here)) == (expected or text)


@pytest.mark.parametrize("name", ["x.json", "x.png"])
@pytest.mark.parametrize("private_path", ["HOME", "CWD"])
def test_a_file_with_a_folder_of_this_machine_is_refused(
    name: str, private_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/people/ada"))
    monkeypatch.chdir(tmp_path)
    secret = {"HOME": "/people/ada", "CWD": str(tmp_path)}[private_path]
    path = tmp_path / name
    path.write_bytes(b"\x00 fine, https://people.org/a/b")
    check_public(path)
    path.write_bytes(f"trained in {secret}/x".encode())
    with pytest.raises(InputError, match=f"names {secret}"):
        check_public(path)


@pytest.mark.parametrize("text", ["see /data/sets/x", "~/runs", '"a\\n/opt/b/c"', "ran on box-17."])
def test_a_text_with_another_path_or_the_host_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box-17")
    path = tmp_path / "x.md"
    path.write_text(text)
    with pytest.raises(InputError, match="this machine"):
        check_public(path)


def test_a_name_that_is_a_word_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert private.cleaned("localhost", ()) == "localhost"
