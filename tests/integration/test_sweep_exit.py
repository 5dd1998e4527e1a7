"""Sweeps of exit settings on a real cluster: the grid, a search, and one that is killed and goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from actors.sweep_advice import given_up
from actors.sweep_arena import Standing
from actors.sweep_search import Trials
from actors.sweep_subject import Subject, subject_of
from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, load_exit_preset
from avavla_ray.evaluation.proposal import NOTE
from avavla_ray.evaluation.results import Ledger, summarise
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.tracking import children_of, find_runs
from jobs.sweep_exit import Settings, main
from tests.support.point_simulator import point_statistics
from tests.support.policies import stirred_policy, tiny

ROOT = Path(__file__).resolve().parents[2]
SUITE = "tests.support.point_simulator:PointSimulator"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "checkpoint"
    policy = stirred_policy(tiny(latent__max_steps=5), seed=3)
    save_checkpoint(path, policy, point_statistics(), stage="ppo", provenance={"seed": 3})
    return path


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path) -> Settings:
    return Settings(
        checkpoint=checkpoint, suite=(SUITE,), episodes=3, output=tmp_path / "sweep", num_runners=2, isolate=False,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip


def episodes_of(folder: Path) -> list[tuple[str, int, int]]:
    """In the ledger, every line."""
    lines = (folder / SUITE.replace(":", ".") / "episodes.jsonl").read_text().splitlines()[1:]
    return [(each["setting"], each["task"], each["initial_state"]) for each in map(json.loads, lines)]


def judged(settings: Settings) -> list[str]:
    path = settings.output / SUITE.replace(":", ".") / "trials.jsonl"
    return [json.loads(line)["setting"] for line in path.read_text().splitlines()[1:]] if path.exists() else []


def test_a_grid_leaves_the_table_the_picture_a_preset_and_runs_below_one(
    ray_cluster: object, settings: Settings
) -> None:
    main(dataclasses.replace(settings, proposed=1, confirm=1, recommend="adaptive"))
    output = settings.output
    rows = list(csv.DictReader((output / "threshold_table.csv").open()))
    titles = [row["exit_setting"] for row in rows]
    paper = ["0.30", "0.40", "0.50", "0.55", "0.65", "0.75", "0.85", "0.95", "1.00"]
    assert set(paper) | {"fixed depth 0", "fixed depth 1", "fixed depth 3", "fixed depth 5"} <= set(titles)
    assert len(titles) in (13, 14), "one more where the replay sees a gap"
    depths = {row["exit_setting"]: float(row["mean_latent_steps"]) for row in rows}
    assert [depths[f"fixed depth {k}"] for k in (0, 1, 3, 5)] == [0, 1, 3, 5]
    assert depths["1.00"] == 5
    assert NOTE in next(output.rglob("proposal.md")).read_text()
    assert (output / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert r"\begin{tabular}" in (output / "threshold_table.tex").read_text()

    preset = load_exit_preset(output / "exit_preset.json")
    found = json.loads((output / "exit_preset.json").read_text())["found"]
    assert preset.title in titles
    assert preset.fixed_depth is None
    assert found["episodes"] == 6
    advice = (output / "recommendation.md").read_text()
    assert "Confirmed on 1 further initial states" in advice
    assert "McNemar" in advice
    assert f"Chosen among {len(titles) - 4} settings" in advice

    (parent,) = find_runs(uri=settings.tracking_uri, kind="sweep")
    assert parent.info.status == "FINISHED"
    children = children_of(parent.info.run_id, uri=settings.tracking_uri)
    counted = Counter(run.data.tags["kind"] for run in children)
    assert counted["evaluation"] == len(titles)
    assert counted["confirmation"] >= 1
    (full,) = [run for run in children if run.data.params["exit_setting"] == "fixed depth 5"
               and run.data.tags["kind"] == "evaluation"]  # fmt: skip
    assert full.data.metrics["mean_latent_steps"] == 5
    assert {"success_rate", "ms_per_decision", "env_steps", "success_rate_low"} <= set(full.data.metrics)

    from jobs import compare

    compare.main(compare.Settings(sweep="sweep", output=output / "compare", tracking_uri=settings.tracking_uri))
    again = (output / "compare" / "threshold_table.csv").read_text()
    assert again == (output / "threshold_table.csv").read_text(), "the same settings, none of the confirmation's"


def test_what_can_not_be_is_refused_before_anything_starts(settings: Settings) -> None:
    for changes, message in (
        ({"max_steps_mean": 2.0, "max_ms": 3.0}, "one budget at a time"),
        ({"max_ms": 0.0}, "more than 0"),
        ({"episodes": 9}, "has 1 to 5 a task"),
        ({"confirm": -1}, "--confirm -1"),
        ({"confirm": 3}, "--confirm 3: beyond the 3 initial states .* has 2; give fewer"),
        ({"proposed": 1, "suite": (SUITE, "tabletop"), "episodes": 1}, "--proposed takes one --suite"),
        ({"thresholds": (0.555,)}, "multiple of 0.01"),
        ({"depths": (7,)}, "7"),
        ({"search": "tpe", "suite": (SUITE, "tabletop")}, "takes one --suite"),
        ({"search": "gp", "trials": 0}, "--trials 0"),
        ({"search": "gp", "proposed": 2}, "--proposed goes with"),
        ({"search": "tpe", "error_rate": 0.0}, "--error-rate 0"),
        ({"episodes_budget": 5}, "goes with a search"),
        ({"by": "family"}, "--by goes with a search"),
        ({"trials": 3}, "--trials goes with a search"),
        ({"error_rate": 0.1}, "--error-rate goes with a search"),
        ({"search": "tpe", "episodes_budget": 6}, "--episodes-budget 6: .* takes 6 episodes"),
        ({"search": "tpe", "thresholds": (0.5,), "episodes_budget": 9}, "takes 12 episodes"),
        ({"recommend": "adaptive", "thresholds": ()}, "--recommend adaptive: no threshold would be played"),
        ({"give_up": 1.0}, "--give-up 1.0: give a share, 0.01 is one point"),
        ({"give_up": -0.1}, "0.01 is one point"),
        ({"give_up": 0.02, "max_ms": 3.0}, "--give-up goes without a budget"),
        ({"server_gpus": 1.0}, "--server-gpus is of policy servers"),
        ({"num_servers": 1}, "--num-servers is of policy servers"),
        ({"num_servers": 0, "placement": "server"}, "--num-servers 0"),
        ({"server_gpus": -1.0, "placement": "server"}, "--server-gpus -1"),
        ({"suite": ("calvin_d_chains",)}, "calvin_d_chains: a sweep plays single tasks: give --suite calvin_d$"),
        ({"suite": ()}, "give --suite"),
    ):
        with pytest.raises(InputError, match=message):
            main(dataclasses.replace(settings, **changes))
    assert not settings.output.exists()


def test_a_resumed_search_plays_lost_episodes_and_counts_only_what_settings_were_judged_by(
    ray_cluster: object, settings: Settings
) -> None:
    """Of one setting a simulator had given up an episode; another was ended early while others were under way; a third
    was ended early and is now listed to be played."""
    subject = subject_of_three(settings)
    folder = settings.output / SUITE.replace(":", ".")
    lost, ended, listed = (ExitSetting(exit_threshold=value) for value in (0.3, 0.4, 0.5))
    wanted = {
        **subject.identity, "by": "global", "budget": "at most 3 latent steps a decision", "episodes": 3,
        "tasks": [0, 1], "error_rate": 0.05,
    }  # fmt: skip
    trials = Trials(folder / "trials.jsonl", wanted, resume=False)
    ledger = Ledger(folder / "episodes.jsonl", subject.identity, resume=False)
    for setting, verdict, counted, known in (
        (lost, "complete", 5, 5), (ended, "worse", 4, 6), (listed, "over budget", 4, 4)
    ):  # fmt: skip
        trials.add(Standing(setting.label, verdict, counted, 1, 0.2, 2.0, {"threshold": setting.exit_threshold}))
        for key in subject.planned[:known]:
            ledger.add(EpisodeRecord(setting.label, *key, False, 8, [2], [1.0]))
    main(
        dataclasses.replace(
            settings, search="tpe", max_steps_mean=3.0, trials=3, confirm=0, num_runners=1, thresholds=(0.5,),
            resume=True,
        )
    )  # fmt: skip
    found = {
        setting.label: json.loads((folder / f"{setting.label}.json").read_text())["episodes"]
        for setting in (lost, ended, listed)
    }
    assert found == {lost.label: 6, ended.label: 4, listed.label: 6}
    verdicts = {each.setting: each.verdict for each in Trials(folder / "trials.jsonl", wanted, True).records.values()}
    assert verdicts == {lost.label: "complete", ended.label: "worse", listed.label: "complete"}
    titles = [row["exit_setting"] for row in csv.DictReader((settings.output / "threshold_table.csv").open())]
    assert titles == ["0.30", "0.50", "fixed depth 5"]


def test_episodes_that_were_given_up_are_named() -> None:
    setting = ExitSetting(exit_threshold=0.5)
    records = [
        EpisodeRecord(setting.label, 1, 0, True, 8, [2], [1.0]),
        EpisodeRecord(setting.label, 1, 4, False, 0, [], [], "the simulator died"),
    ]
    (line,) = given_up([summarise(setting, records, {1: "pick it up"}, suite="drawn")])
    assert "0.50 on drawn: simulators gave up 1 episodes" in line
    assert "(task 1 state 4)" in line
    assert given_up([summarise(setting, records[:1], {1: "pick it up"}, suite="drawn")]) == []


def subject_of_three(settings: Settings) -> Subject:
    """Three initial states a task."""
    return subject_of(
        settings.checkpoint, SUITE, unnorm_key=None, tasks=(), states=3, confirm=None, label=None, assets="bundled",
        render="reference", max_steps=None, seed=7,
    )  # fmt: skip


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_another_sweep_is_refused_before_anything_is_written(settings: Settings) -> None:
    """A forgotten --resume, episodes of a GPU, and a search under other conditions."""
    subject = subject_of_three(settings)
    search = dataclasses.replace(settings, search="tpe", max_steps_mean=3.0, resume=True)
    folder = settings.output / SUITE.replace(":", ".")
    wanted = {
        **subject.identity, "by": "global", "budget": "at most 3 latent steps a decision", "episodes": 3,
        "tasks": [0, 1], "error_rate": 0.05,
    }  # fmt: skip
    Trials(folder / "trials.jsonl", wanted, resume=False)
    ledger = Ledger(folder / "episodes.jsonl", subject.identity, resume=False)
    for depth, task, state in ((5, 0, 0), (1, 0, 0), (3, 1, 2), (3, 0, 4)):  # the last is none of the three states
        ledger.add(EpisodeRecord(f"depth_{depth}", task, state, True, 8, [depth], [1.0]))
    (settings.output / "mlflow.json").write_text("{}")
    before = snapshot(settings.output)
    for changes, message in (
        ({"resume": False}, "holds finished episodes: add --resume"),
        ({"seed": 8}, r"another evaluation \(seed 7 -> 8\)"),
        ({"placement": "server", "server_gpus": 1.0}, r"decided_on None -> gpu"),
        ({"by": "depth"}, r"another search \(by global -> depth\): .*remove this file"),
        ({"error_rate": 0.1}, r"error_rate 0.05 -> 0.1"),
        ({"thresholds": (0.5,), "episodes_budget": 13}, "--episodes-budget 13: .* are 14 episodes"),
        ({"max_steps_mean": 2.0}, r"another search \(budget at most 3"),
    ):
        with pytest.raises(InputError, match=message):
            main(dataclasses.replace(search, **changes))
        assert snapshot(settings.output) == before


@pytest.mark.long
def test_a_search_keeps_within_its_budget_and_goes_on_with_more_trials(ray_cluster: object, settings: Settings) -> None:
    search = dataclasses.replace(
        settings, search="tpe", by="family", max_steps_mean=3.0, trials=2, confirm=0, num_runners=1
    )
    main(search)
    assert len(judged(settings)) == 2
    played = episodes_of(settings.output)
    assert NOTE in next(settings.output.rglob("proposal.md")).read_text()
    with pytest.raises(InputError, match="--resume"):
        main(search)
    main(dataclasses.replace(search, search="gp", trials=3, resume=True))
    assert len(judged(settings)) == len(set(judged(settings))) == 3
    again = episodes_of(settings.output)
    assert len(again) == len(set(again))
    assert set(played) < set(again)

    preset = load_exit_preset(settings.output / "exit_preset.json")
    assert preset.fixed_depth is None, "full depth is over the budget"
    assert [name for name, _ in preset.families] == ["reach"]
    found = json.loads((settings.output / "exit_preset.json").read_text())["found"]
    assert found["mean_latent_steps"] <= 3
    assert "Not confirmed" in (settings.output / "recommendation.md").read_text()


def job(settings: Settings, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "jobs/sweep_exit.py", "--checkpoint", str(settings.checkpoint), "--suite", SUITE,
         "--episodes", "5", "--search", "tpe", "--max-steps-mean", "3", "--trials", "3", "--num-runners", "1",
         "--no-isolate", "--output", str(settings.output), "--tracking-uri", settings.tracking_uri, *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_search_that_was_killed_goes_on_and_plays_nothing_twice(settings: Settings) -> None:
    first = job(settings)
    end = time.monotonic() + 200
    while not judged(settings):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before_trials, before = judged(settings), episodes_of(settings.output)
    assert len(before) >= 10

    second = job(settings, "--resume")
    try:
        said, _ = second.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        second.kill()
        raise
    assert second.returncode == 0, said
    after = episodes_of(settings.output)
    assert len(after) == len(set(after)), "an episode was played twice"
    assert set(before) <= set(after)
    trials = judged(settings)
    assert trials[: len(before_trials)] == before_trials
    assert len(trials) == len(set(trials)) == 3
    found = json.loads((settings.output / "exit_preset.json").read_text())["found"]
    assert found["mean_latent_steps"] <= 3
    (parent,) = find_runs(uri=settings.tracking_uri, kind="sweep")
    children = children_of(parent.info.run_id, uri=settings.tracking_uri)
    evaluations = [run for run in children if run.data.tags["kind"] == "evaluation"]
    labels = Counter(run.data.params["exit_setting"] for run in evaluations)
    assert max(labels.values()) == 1
    assert len(labels) == 4, "three trials and full depth"
