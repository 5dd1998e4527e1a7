"""Which steps of a proof are done again, how long they took, and what a chain that is told to end does."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avavla_ray import job_chain
from avavla_ray.errors import InputError
from avavla_ray.evaluation.proofs import chain, cloning_curve
from avavla_ray.evaluation.proofs.catalogue import PROOFS, Options, proof
from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.step import Inside, Play, Proof, Step
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from jobs import prove
from tests.support.policies import some_statistics, tiny
from tests.unit.test_commands_in_docs import complaint

ROOT = Path(__file__).resolve().parents[2]
DEMOS = Step("demos", "demonstrations", "collect_demos", ("--seed", 0), "dataset.json")
BC = Step("bc", "cloning", "bc_libero", ("--demos", Inside("demos")), "checkpoint/manifest.json")
PLAY = Step("play", "evaluation", "evaluate", ("--checkpoint", Inside("bc/checkpoint")), "table.md")
OTHER = Step("other", "evaluation", "evaluate", ("--checkpoint", Inside("demos")), "table.md")
CHAIN = Proof("chain", "Steps in a row.", (DEMOS, BC, PLAY), (Play("BC", "play"),))


class Jobs:
    """In place of real ones: each makes what its step is to make, or fails once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.words: dict[str, list[str]] = {}
        self.fail: dict[str, int] = {}
        self.content: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        monkeypatch.setattr(chain, "run_stage", self.run)

    def run(self, title: str, job: str, words: Sequence[Any]) -> None:
        output = Path(words[list(words).index("--output") + 1])
        self.ran.append(output.name)
        self.words[output.name] = [str(word) for word in words]
        made = output / next(step for step in (*CHAIN.steps, OTHER) if step.key == output.name).makes
        output.mkdir(parents=True, exist_ok=True)
        if output.name in self.fail:
            raise SystemExit(self.fail.pop(output.name))
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(json.dumps(self.content.pop(output.name, {})))
        if output.name in self.results:
            (output / "depth_5.json").write_text(json.dumps(self.results[output.name]))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


def run(folder: Path, steps: tuple[Step, ...] = CHAIN.steps) -> Notes:
    return chain.run_chain(Proof("chain", "", steps, ()), folder, num_runners=3, uri="sqlite:///x.db")


def test_finished_steps_are_skipped_and_a_failed_one_is_where_the_next_command_goes_on(
    jobs: Jobs, tmp_path: Path
) -> None:
    jobs.fail["bc"] = 1
    with pytest.raises(SystemExit) as end:
        run(tmp_path)
    assert (end.value.code, jobs.ran) == (1, ["demos", "bc"])
    run(tmp_path)
    assert jobs.ran == ["demos", "bc", "bc", "play"]
    run(tmp_path)
    assert jobs.ran == ["demos", "bc", "bc", "play"]


def test_what_simulators_gave_up_is_done_again_before_anything_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    jobs.content["demos"] = {"quarantined_tasks": {"3": "it hangs"}}
    with pytest.raises(InputError, match=r"demos: simulators gave up whole tasks \(task 3: it hangs\): repeat"):
        run(tmp_path)
    jobs.results["play"] = {"exit_threshold": 0.5, "provenance": {}, "tasks": [], "aborted_episodes": 2}
    with pytest.raises(InputError, match=r"play: simulators gave up 2 episodes, .*: repeat"):
        run(tmp_path)
    assert "--resume" not in jobs.words["play"]
    jobs.results["play"]["aborted_episodes"] = 0
    run(tmp_path)
    assert jobs.ran == ["demos", "demos", "bc", "play", "play"]
    assert jobs.words["play"][-1] == "--resume", "the evaluation itself was finished"


def test_a_step_is_told_where_it_writes_who_it_is_and_how_many_play(jobs: Jobs, tmp_path: Path) -> None:
    run(tmp_path / "proof-0")
    words = jobs.words["play"]
    assert words[:2] == ["--checkpoint", str(tmp_path / "proof-0/bc/checkpoint")]
    assert words[words.index("--run-id") + 1] == "proof-0/play"
    assert words[words.index("--num-runners") + 1] == "3"
    assert "--num-runners" not in jobs.words["bc"]
    assert "--run-id" not in jobs.words["demos"], "collect_demos has none"
    assert "--tracking-uri" not in jobs.words["demos"]


def test_what_is_gone_is_made_again_and_what_was_made_of_it_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "bc/checkpoint/manifest.json").unlink()
    with pytest.raises(InputError, match="play was begun with what bc has made anew since: remove that folder"):
        run(tmp_path)
    assert jobs.ran == ["demos", "bc", "play", "bc"]
    (tmp_path / "play/table.md").unlink()
    (tmp_path / "play").rmdir()
    run(tmp_path)
    assert jobs.ran[-1] == "play"


def test_a_half_done_step_does_not_go_on_with_other_inputs(jobs: Jobs, tmp_path: Path) -> None:
    jobs.fail["play"] = 1
    with pytest.raises(SystemExit):
        run(tmp_path)
    (tmp_path / "bc/checkpoint/manifest.json").unlink()
    with pytest.raises(InputError, match="remove that folder"):
        run(tmp_path)


def test_steps_that_read_something_else_stay(jobs: Jobs, tmp_path: Path) -> None:
    run(tmp_path, (*CHAIN.steps, OTHER))
    (tmp_path / "play/table.md").unlink()
    run(tmp_path, (*CHAIN.steps, OTHER))
    assert jobs.ran == ["demos", "bc", "play", "other", "play"]


def test_other_words_are_the_jobs_to_judge_and_a_refusal_changes_nothing(jobs: Jobs, tmp_path: Path) -> None:
    run(tmp_path)
    longer = Step("bc", "cloning", "bc_libero", (*BC.words, "--steps", 7), BC.makes)
    jobs.fail["bc"] = 2
    with pytest.raises(SystemExit):
        run(tmp_path, (DEMOS, longer, PLAY))
    jobs.ran.clear()
    run(tmp_path)
    assert jobs.ran == []
    with pytest.raises(InputError, match="bc has made anew"):
        run(tmp_path, (DEMOS, longer, PLAY))
    assert jobs.ran == ["bc"]


def test_a_job_that_leaves_nothing_is_not_finished(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    with pytest.raises(InputError, match="left no .*dataset.json"), notes.running(DEMOS, "abc", "machine"):
        pass
    assert not Notes(tmp_path).finished(DEMOS)


def test_time_adds_up_over_resumptions_without_the_pauses_and_survives_a_kill(tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    with pytest.raises(KeyboardInterrupt), Notes(tmp_path).running(DEMOS, "abc", "one"):
        time.sleep(0.2)
        raise KeyboardInterrupt
    first = json.loads((tmp_path / "steps.json").read_text())["demos"]["seconds"]
    assert 0.2 <= first < 0.5
    time.sleep(0.4)
    with Notes(tmp_path).running(DEMOS, "def", "two", every=0.05):
        time.sleep(0.3)
        killed_now = json.loads((tmp_path / "steps.json").read_text())["demos"]
        assert first + 0.1 <= killed_now["seconds"] <= first + 0.5, "what a kill would leave"
        assert killed_now["finished"] is None
        (tmp_path / "demos/dataset.json").write_text("{}")
    notes = Notes(tmp_path)
    assert first + 0.3 <= 60 * notes.minutes((DEMOS,)) < first + 0.7
    assert notes.finished(DEMOS)
    assert (notes.ran((DEMOS,), "commits"), notes.ran((DEMOS,), "machines")) == (["abc", "def"], ["one", "two"])


def test_time_of_what_was_removed_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    with pytest.raises(RuntimeError), Notes(tmp_path).running(DEMOS, "abc", "one"):
        time.sleep(0.2)
        raise RuntimeError
    (tmp_path / "demos").rmdir()
    with pytest.raises(RuntimeError), Notes(tmp_path).running(DEMOS, "abc", "one"):
        raise RuntimeError
    assert 60 * Notes(tmp_path).minutes((DEMOS,)) < 0.2


def test_a_row_is_made_of_the_steps_before_it_and_no_others() -> None:
    chosen = proof("ppo_object", Options())
    assert [step.key for step in chosen.needed("evaluate-bc")] == ["demos", "bc", "evaluate-bc"]
    assert [step.key for step in chosen.needed("evaluate-ppo")] == ["demos", "bc", "ppo", "evaluate-ppo"]


@pytest.mark.parametrize("name", PROOFS)
@pytest.mark.parametrize("stage", ["bc", "ppo"])
def test_every_step_is_a_command_that_its_job_takes(name: str, stage: str) -> None:
    chosen = proof(name, Options(seed=4, assets="official", render="reference", stage=stage))
    written: set[str] = set()
    for step in chosen.steps:
        assert set(step.reads) <= written, f"{step.key} reads what is not there yet"
        written.add(step.key)
        words = chain.command(step, Path("runs/x"), num_runners=2, uri="sqlite:///x.db")
        assert complaint(step.job, shlex.join(map(str, words))) is None
        assert "--seed 4" in " ".join(map(str, words))
    assert {play.step for play in chosen.plays} <= written
    assert chosen.targets


def test_a_policy_with_a_value_head_is_calibrated_at_once() -> None:
    cloned, trained = (proof("early_exit", Options(stage=stage)) for stage in ("bc", "ppo"))
    assert [step.key for step in cloned.steps][:2] == ["ppo", "calibrated"]
    assert trained.steps[0].key == "calibrated"


def test_the_start_of_early_exit_is_known_by_what_it_is_and_learned_from(tmp_path: Path) -> None:
    learned = {"simulator": {"assets": "official", "render": "fast"}}
    save_checkpoint(tmp_path / "start", AvaVlaPolicy(tiny()), some_statistics(), stage="ppo", provenance={
        "demonstrations": [learned, {}],
    })  # fmt: skip
    asked = prove.Settings("early_exit", checkpoint=tmp_path / "start", assets="official")
    options = prove.options_of(asked)
    assert (options.stage, len(options.digest)) == ("ppo", 64)
    with pytest.raises(InputError, match="start learned with --assets official: give that"):
        prove.options_of(replace(asked, assets="bundled"))


def test_all_proofs_are_listed_with_their_targets(capsys: pytest.CaptureFixture[str]) -> None:
    prove.main(prove.Settings())
    said = capsys.readouterr().out
    for name in PROOFS:
        assert name in said
    assert "BC: success of at least 85%" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (prove.Settings("bc_objekt"), "did you mean 'bc_object'"),
        (prove.Settings("bc_object", checkpoint=Path("x")), "--checkpoint is early_exit's"),
        (prove.Settings("early_exit", seed=987), "run jobs/prove.py bc_object --seed 987"),
        (prove.Settings("memory_tabletop", num_runners=0), "--num-runners 0"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    settings: prove.Settings, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=message):
        prove.main(settings)
    assert not (tmp_path / "runs/proofs").exists()


def test_a_folder_of_another_proof_is_refused(tmp_path: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloning_curve, "keep_cloning_curve", lambda *_: None)  # these jobs track nothing
    settings = prove.Settings("chain", seed=1)
    with pytest.raises(InputError, match="holds 0 results"):  # of jobs that evaluated nothing
        prove.prove(CHAIN, settings, tmp_path, "sqlite:///x.db")
    with pytest.raises(InputError, match="seed 1 -> 2"):
        prove.prove(CHAIN, prove.Settings("chain", seed=2), tmp_path, "sqlite:///x.db")


WAITS = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.2)
    pathlib.Path(sys.argv[1], "saved").write_text("")
    raise SystemExit(1)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "begun").write_text("")
time.sleep(60)
"""
CHAIN_OF_ONE = """
import pathlib, sys
from avavla_ray import job_chain
job_chain.JOBS = pathlib.Path(sys.argv[1])
job_chain.run_stage("waiting", "waits", [sys.argv[1]])
"""


@pytest.mark.parametrize(("end_by", "status"), [(signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_chain_that_ends_lets_its_job_save(end_by: signal.Signals, status: int, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    process = subprocess.Popen([sys.executable, "-c", CHAIN_OF_ONE, str(tmp_path)], cwd=ROOT)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(end_by)
        assert process.wait(30) == status
    finally:
        process.kill()
    while not (tmp_path / "saved").exists() and time.monotonic() < end:  # a chain that was killed waits for nobody
        time.sleep(0.02)
    assert (tmp_path / "saved").exists()


def test_a_job_that_does_not_hear_an_interrupt_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    monkeypatch.setattr(job_chain, "JOBS", tmp_path)
    monkeypatch.setattr(job_chain, "HEARD_S", 0.2)
    main, before = threading.get_ident(), signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            job_chain.run_stage("waiting", "waits", [str(tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(("ends", "status"), [("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 1)])
def test_a_chain_ends_as_its_job_did(ends: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fails.py").write_text(ends)
    monkeypatch.setattr(job_chain, "JOBS", tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        job_chain.run_stage("failing", "fails", [])
    assert end.value.code == status
    assert signal.getsignal(signal.SIGTERM) is before
