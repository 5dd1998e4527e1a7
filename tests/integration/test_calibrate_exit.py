"""Exit calibration with the real table-top: what is played, what learns, what is left behind."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch

from actors.calibration import collect
from avavla_ray.errors import InputError
from avavla_ray.evaluation.calibration_report import QUANTILES
from avavla_ray.learning.exit_labels import value_gains
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.reasoning import ExitGate
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.tracking import find_runs
from avavla_ray.training.gate_decisions import DecisionFolder, Start, play_for_states
from jobs.calibrate_exit import Settings, main
from tests.support.failing_simulators import breaks_at, dies_once
from tests.support.point_simulator import PointSimulator, point_statistics
from tests.support.policies import some_statistics, stirred_policy, tiny
from tests.support.valued_policy import valued_policy

TASKS, EPISODES, MAX_STEPS = (3, 8), 8, 80


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint as PPO leaves it."""
    folder = tmp_path_factory.mktemp("calibration") / "ppo"
    policy = valued_policy(TASKS, 4, MAX_STEPS)
    save_checkpoint(
        folder, policy, some_statistics(), stage="ppo", provenance={"ppo": {"group_size": 0}},
        extra={"held_out": {"noise": ["a"]}},
    )  # fmt: skip
    return folder


def settings_of(start, output, **changes):
    given = Settings(
        checkpoint=start, suite="tabletop", tasks=TASKS, episodes=EPISODES, max_steps=MAX_STEPS, steps=300,
        learning_rate=1e-2, batch=32, held_out=0.25, output=output, num_runners=2, tracking_uri=f"sqlite:///{output.parent}/mlflow.db",
    )  # fmt: skip
    return dataclasses.replace(given, **changes)


@pytest.fixture(scope="module")
def calibrated(ray_cluster, start, tmp_path_factory):
    """The job's output for a delta that splits the labels, with isotonic regression."""
    output = tmp_path_factory.mktemp("calibration") / "calibrate"
    main(settings_of(start, output, delta=0.0, post="isotonic"))
    return output


def played_values(start, output):
    """Values (N, K + 1) of all decisions that were collected, by the checkpoint's own value head."""
    folder, policy = DecisionFolder(output / "decisions"), load_checkpoint(start).policy
    episodes = [folder.load(Start(task, number)) for task in TASKS for number in range(EPISODES)]
    with torch.no_grad():
        return torch.cat([policy.value(torch.from_numpy(each.states)) for each in episodes])


def test_only_the_gate_has_learned(start, calibrated):
    before, after = load_checkpoint(start), load_checkpoint(calibrated / "checkpoint")
    assert after.stage == "calibrated"
    assert after.provenance["trained_from"] == before.digest
    assert after.extra["held_out"] == {"noise": ["a"]}
    assert after.extra["calibration"]["post"] == "isotonic"
    old, new = before.policy.state_dict(), after.policy.state_dict()
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if name.startswith("loop.exit_gate.")}
    (found,) = after.policy.config.latent.gate_maps
    assert found.kind == "isotonic"
    latent = dataclasses.replace(after.policy.config.latent, gate_maps=())
    assert dataclasses.replace(after.policy.config, latent=latent) == before.policy.config


def test_the_report_is_of_the_labels_that_the_value_head_gives(start, calibrated):
    summary = json.loads((calibrated / "summary.json").read_text())
    values = played_values(start, calibrated)
    roles = {each["role"]: each for each in summary["decisions"]}
    assert sum(role["decisions"] for role in roles.values()) == len(values)
    assert roles["validation"]["episodes"] == roles["test"]["episodes"] == 2 * len(TASKS)
    rates = sum(np.multiply(role["label_rates"], role["decisions"]) for role in roles.values()) / len(values)
    gains = value_gains(values)
    np.testing.assert_allclose(rates, (gains < 0.0).float().mean(0).numpy(), atol=1e-6)
    assert 0.05 < rates.mean() < 0.95
    middle = np.quantile([role["gains"][0][QUANTILES.index(0.5)] for role in roles.values()], [0, 1])
    assert middle[0] <= float(gains[:, 0].median()) <= middle[1]
    before, trained, mapped = summary["gates"]
    assert [gate["name"] for gate in (before, trained, mapped)] == ["before", "trained", "trained, isotonic"]
    assert trained["overall"]["nll"] < before["overall"]["nll"] - 0.05
    assert before["overall"]["count"] == 4 * roles["test"]["decisions"]
    for gate in summary["gates"]:
        steps = [each["latent_steps"] for each in gate["exits"]]
        assert steps == sorted(steps)
        assert steps[-1] == 5.0


def test_pictures_tables_and_the_run_are_there(calibrated):
    for name in ("reliability.png", "training.png", "exits.png"):
        assert (calibrated / name).read_bytes().startswith(b"\x89PNG")
    text = (calibrated / "calibration.md").read_text()
    assert "This is a proposal, not a result" in text
    assert text.count("\n| 0.") == 8  # the paper's thresholds below 1
    (run,) = find_runs(uri=f"sqlite:///{calibrated.parent}/mlflow.db", kind="calibration")
    assert run.info.status == "FINISHED"
    assert run.data.params["post"] == "isotonic"
    assert {"before/ece", "after/ece", "validation/loss", "label_rate/step_1"} <= run.data.metrics.keys()
    assert json.loads(run.data.tags["simulator"])["suite"] == "tabletop"


def test_deciding_meets_the_states_that_were_collected_and_exits_as_the_maps_say(start, calibrated):
    policy = load_checkpoint(calibrated / "checkpoint").policy
    agent, config = Agent(policy, some_statistics()), SimulatorConfig(suite="tabletop", image_size=32)
    stored = DecisionFolder(calibrated / "decisions").load(Start(TASKS[0], 0))
    simulator = TabletopSimulator(config)
    observation = simulator.reset(TASKS[0], seed=stored.start.seed(0))
    simulator.close()
    with torch.no_grad():
        scores = ExitGate.score(policy.gate_logit(torch.from_numpy(stored.states[:1, 1:])))
    full, _, _ = agent.decide([observation], agent.policy.initial_belief(1), depth=5)
    torch.testing.assert_close(full.trace.z[0], torch.from_numpy(stored.states[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(full.trace.exit_score, scores, atol=1e-4, rtol=0)
    for threshold in (0.5 * float(scores[0, :-1].min()), 0.5 * (1 + float(scores[0, :-1].max()))):
        decision, _, _ = agent.decide([observation], agent.policy.initial_belief(1), exit_threshold=threshold)
        expected = 1 if threshold < scores[0, :-1].min() else 5
        assert int(decision.trace.steps[0]) == expected


def test_a_resumed_run_plays_only_what_is_missing_and_comes_to_the_same(start, calibrated, ray_cluster):
    decisions, uri = calibrated / "decisions", f"sqlite:///{calibrated.parent}/mlflow.db"
    before = {path.name: path.stat().st_mtime_ns for path in decisions.glob("*.npz")}
    digest = load_checkpoint(calibrated / "checkpoint").digest
    gone = decisions / "task_003_episode_00002.npz"
    content = np.load(gone)["states"]
    gone.unlink()
    (decisions / ".task_003_episode_00002.npz.abc.tmp").write_bytes(b"half")
    main(settings_of(start, calibrated, delta=0.0, post="isotonic", resume=True, num_runners=1))
    after = {path.name: path.stat().st_mtime_ns for path in decisions.glob("*.npz")}
    assert {name for name in before if before[name] != after[name]} == {gone.name}
    assert not list(decisions.glob(".*"))
    np.testing.assert_array_equal(np.load(gone)["states"], content)
    assert load_checkpoint(calibrated / "checkpoint").digest == digest
    assert len(find_runs(uri=uri, kind="calibration")) == 1
    main(settings_of(start, calibrated, delta=0.02, steps=20, resume=True))  # another recipe is another run
    runs = find_runs(uri=uri, kind="calibration")
    assert sorted(run.data.params["delta"] for run in runs) == ["0.0", "0.02"]
    assert load_checkpoint(calibrated / "checkpoint").policy.config == load_checkpoint(start).policy.config
    with pytest.raises(InputError, match=r"begun with other settings \(seed 0 -> 1\)"):
        main(settings_of(start, calibrated, resume=True, seed=1))
    with pytest.raises(InputError, match="add --resume"):
        main(settings_of(start, calibrated))


@pytest.mark.parametrize("isolate", [True, False])
def test_episodes_survive_their_simulator_and_a_bad_task_is_left_out(ray_cluster, tmp_path, isolate):
    agent = Agent(stirred_policy(tiny()).eval(), point_statistics())
    config = SimulatorConfig(image_size=32)
    starts = [Start(task, number) for number in range(4) for task in (0, 1)]
    simulator = PointSimulator(config)
    states = [play_for_states(simulator, agent, start, seed=0, exit_threshold=None).states for start in starts]
    with torch.no_grad():
        scores = ExitGate.score(agent.policy.gate_logit(torch.from_numpy(np.concatenate(states))[:, 1]))
    ordered = scores.sort().values
    middle = len(ordered) // 3 + int(ordered[len(ordered) // 3 : 2 * len(ordered) // 3].diff().argmax())
    threshold = float(ordered[middle : middle + 2].mean())  # some stop after the first step, by more than rounding

    def play(factory):
        played = {}
        lost = collect(
            agent, config, starts, 1, lambda each, _: played.setdefault(each.start, each), seed=0,
            exit_threshold=threshold, factory=factory, isolate=isolate,
        )  # fmt: skip
        return played, lost

    found, lost = play(functools.partial(dies_once, tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
    assert found.keys() == set(starts)
    assert lost == {}
    for start in starts:  # whoever plays them, and after whatever
        here = play_for_states(simulator, agent, start, seed=0, exit_threshold=threshold)
        np.testing.assert_allclose(found[start].states, here.states, atol=1e-5)
        assert found[start].latent_steps.tolist() == here.latent_steps.tolist()
        assert (found[start].success, found[start].steps) == (here.success, here.steps)
    assert len({int(k) for each in found.values() for k in each.latent_steps}) > 1
    if not isolate:
        return
    found, lost = play(functools.partial(breaks_at, 1))
    assert {start.task for start in found} == {0}
    assert lost.keys() == {start for start in starts if start.task == 1}
    assert "task 1 is quarantined" in lost[Start(1, 3)]


def test_what_cannot_be_calibrated_is_refused_before_anything_starts(start, tmp_path):
    def refused(message, stage="ppo", provenance=None, **changes):
        place = tmp_path / message.split()[0]
        save_checkpoint(
            place, stirred_policy(tiny(**changes)), some_statistics(), stage=stage, provenance=provenance or {}
        )
        with pytest.raises(InputError, match=message):
            main(settings_of(place, tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    refused("is of stage bc, whose value head was never trained", stage="bc")
    refused("without a critic", provenance={"ppo": {"group_size": 4}})
    refused("has no latent loop", latent__enabled=False)
    refused("always takes all its latent steps", latent__early_exit=False)
    refused("takes one latent step", latent__max_steps=1)
    for changes, message in (
        ({"episodes": 2}, "give 3 or more"),
        ({"steps": 0}, "steps 0 is too small"),
        ({"exit_threshold": 1.5}, "outside"),
        ({"held_out": 0.5}, "leaves nothing to learn from"),
        ({"suite": "tabletopp"}, "did you mean 'tabletop'"),
    ):
        with pytest.raises(InputError, match=message):
            main(settings_of(start, tmp_path / "out", **changes))
        assert not (tmp_path / "out").exists()
