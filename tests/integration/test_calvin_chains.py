"""Chains of CALVIN tasks, played against a fake calvin_env (tests/support/fake_calvin_env): no physics, same API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation import calvin_chains
from avavla_ray.evaluation.calvin_chains import ATTEMPTS, ExpertActor, PolicyActor, Settings, play_chain
from avavla_ray.evaluation.chain_results import ChainRecord
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig
from avavla_ray.simulators.calvin.chains import CalvinWithExpert, IsolatedCalvin
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS
from avavla_ray.simulators.isolated.faults import FAULTS, FaultPlan
from avavla_ray.simulators.isolated.limits import Limits
from tests.support.calvin_chains import LED_CHAIN
from tests.support.fake_calvin import BUTTON, FAKE_ROOT, ButtonPath, calvin_env_at, make_button_calvin, towards
from tests.support.policies import some_statistics, stirred_policy, tiny

CONFIG = SimulatorConfig(suite="calvin_d", image_size=64)
STILL = np.array([[0, 0, 0, 0, 0, 0, 1.0]])


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with calvin_env_at(FAKE_ROOT):
        yield


@pytest.fixture
def simulator() -> Iterator[CalvinWithExpert]:
    with closing(CalvinWithExpert(CONFIG)) as made:
        yield made


def test_a_chain_goes_on_in_the_same_scene_with_a_new_start_and_new_time(simulator: CalvinWithExpert) -> None:
    assert LED_CHAIN.condition["led"] == 1
    simulator.begin_sequence(LED_CHAIN)
    while not (result := simulator.run_chunk(towards(simulator, BUTTON))).done:
        pass
    assert result.success
    scene, hand = simulator.scene_obs, simulator.robot_obs
    observation = simulator.next_task()
    assert observation.instruction == INSTRUCTIONS["turn_on_led"]
    np.testing.assert_array_equal(simulator.scene_obs, scene)
    np.testing.assert_array_equal(simulator.robot_obs, hand)
    assert simulator.start_info["scene_info"]["lights"]["led"]["logical_state"] == 0
    for _ in range(359):
        result = simulator.run_chunk(STILL)
        assert not result.done
    assert simulator.run_chunk(STILL).truncated


class ButtonPresser:
    """Presses the LED's button at every task, by what it sees; remembers what it was shown as the tasks began."""

    def __init__(self) -> None:
        self.instructions: list[str] = []

    def begin(self) -> None:
        self.path: ButtonPath | None = None

    def act(self, simulator: Any, observation: Observation, record: ChainRecord) -> ChunkResult:
        if self.path is None:
            self.path = ButtonPath()
            self.instructions.append(observation.instruction)
        record.latent_steps.append(1)
        return simulator.run_chunk(self.path.action(observation.proprio[:3])[None])


def isolated_with_faults(folder: Path, every: int, *faults: str) -> IsolatedCalvin:
    plan = FaultPlan(folder, every=every, faults=faults)
    limits = Limits(step_s=0.2, reset_s=20.0)
    return IsolatedCalvin(replace(CONFIG, render="none"), limits, partial(make_button_calvin, plan))


def test_a_chain_ends_at_the_first_task_that_fails(simulator: CalvinWithExpert) -> None:
    actor = ButtonPresser()
    record = play_chain(simulator, actor, 7, LED_CHAIN)
    assert actor.instructions == [INSTRUCTIONS[task] for task in LED_CHAIN.tasks[:3]]
    assert (record.sequence, record.completed, record.attempts, record.error) == (7, 2, 1, None)
    assert record.steps[2] == 360
    assert len(record.latent_steps) == sum(record.steps)


def test_isolation_changes_nothing_of_a_chain(tmp_path: Path) -> None:
    with closing(CalvinWithExpert(CONFIG)) as inside:
        expected = play_chain(inside, ButtonPresser(), 0, LED_CHAIN)
    with closing(IsolatedCalvin(CONFIG)) as isolated:
        assert play_chain(isolated, ButtonPresser(), 0, LED_CHAIN) == expected
        with pytest.raises(InputError, match="begin a sequence"):
            isolated.reset(0)
            isolated.next_task()


def test_the_expert_of_each_task_acts_beside_the_simulator(tmp_path: Path) -> None:
    with closing(isolated_with_faults(tmp_path, 10**6, "killed")) as isolated:
        record = play_chain(isolated, ExpertActor(), 0, LED_CHAIN)
        assert (record.completed, record.attempts, record.steps[2]) == (2, 1, 360)
        with closing(CalvinWithExpert(CONFIG)) as inside:
            steps = play_chain(inside, ButtonPresser(), 0, LED_CHAIN).steps
        assert record.steps == steps  # asking for 30 steps at once does not play past the end of a task
        with pytest.raises(InputError, match="call reset first"):
            isolated.run_expert(1)


@pytest.mark.parametrize("fault", ["segmentation fault", "hang", "physics"])
def test_a_chain_whose_simulator_dies_is_played_again_in_a_new_process(fault: str, tmp_path: Path) -> None:
    with closing(isolated_with_faults(tmp_path, 30, fault, *["none"] * 100)) as isolated:
        record = play_chain(isolated, ExpertActor(), 0, LED_CHAIN)
        assert (record.completed, record.attempts, record.error) == (2, 2, None)
        assert len(record.steps) == 3
        assert isolated.failures == {FAULTS[fault]: 1}


def test_a_chain_that_breaks_each_time_is_aborted_and_the_next_one_is_played(tmp_path: Path) -> None:
    with closing(isolated_with_faults(tmp_path, 30, *["killed"] * ATTEMPTS, *["none"] * 100)) as isolated:
        record = play_chain(isolated, ExpertActor(), 0, LED_CHAIN)
        assert record.attempts == ATTEMPTS
        assert "SIGKILL" in str(record.error)
        assert play_chain(isolated, ExpertActor(), 1, LED_CHAIN).error is None


def test_an_evaluation_names_its_aborted_chains_and_plays_them_again_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = FaultPlan(tmp_path, every=30, faults=("segmentation fault",) * ATTEMPTS + ("none",) * 1000)
    made = partial(IsolatedCalvin, factory=partial(make_button_calvin, plan))
    monkeypatch.setattr("avavla_ray.simulators.calvin.chains.IsolatedCalvin", made)
    monkeypatch.setattr("avavla_ray.simulators.calvin.sequences.published_sequences", lambda: (LED_CHAIN, LED_CHAIN))
    settings = Settings(sequences=2, output=tmp_path / "out")
    calvin_chains.main(settings)
    result = json.loads((settings.output / "chains.json").read_text())
    assert (result["chains"], result["average_length"], result["max_steps"]) == (1, 2.0, 360)
    (aborted,) = result["aborted"]
    assert (aborted["sequence"], aborted["attempts"]) == (0, ATTEMPTS)
    assert "SIGSEGV" in aborted["error"]
    assert f"sequence 0, begun {ATTEMPTS} times" in (settings.output / "table.md").read_text()
    assert "on 1 chains" in capsys.readouterr().out
    calvin_chains.main(replace(settings, resume=True))
    result = json.loads((settings.output / "chains.json").read_text())
    assert (result["chains"], result["average_length"], result["aborted"]) == (2, 2.0, [])
    calvin_chains.main(replace(settings, resume=True, max_steps=360))  # the same limit, said aloud


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    known = {name: replace(some_statistics(), name=name) for name in ("first", "other")}
    save_checkpoint(folder, stirred_policy(tiny()), known, stage="cloned", provenance={})
    return folder


def test_a_checkpoint_plays_chains_and_goes_on_where_it_stopped(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chains = (LED_CHAIN, LED_CHAIN)
    monkeypatch.setattr("avavla_ray.simulators.calvin.sequences.published_sequences", lambda: chains)
    begun = []
    begin = PolicyActor.begin
    monkeypatch.setattr(PolicyActor, "begin", lambda self: begun.append(1) or begin(self))
    settings = Settings(
        sequences=1, checkpoint=checkpoint, unnorm_key="other", depth=1, render="fast", max_steps=12, output=tmp_path
    )  # fmt: skip
    calvin_chains.main(settings)
    with pytest.raises(InputError, match="--resume"):
        calvin_chains.main(settings)
    calvin_chains.main(replace(settings, sequences=2, resume=True))
    assert len(begun) == 2  # the first chain was played once
    result = json.loads((tmp_path / "chains.json").read_text())
    assert (result["chains"], result["actor"], result["exit"]) == (2, "cloned", "depth_1")
    assert result["statistics"] == "other"
    assert result["provenance"]["simulator"]["calvin_env_behaves_like"] == "main"
    assert "12 steps a task instead of 360" in result["provenance"]["deviations"]
    assert result["decisions"] > 0
    assert result["mean_latent_steps"] == 1.0
    assert "average length" in capsys.readouterr().out
    for changes in ({"max_steps": 13}, {"unnorm_key": "first"}):
        with pytest.raises(InputError, match="another evaluation"):
            calvin_chains.main(replace(settings, resume=True, **changes))


def test_the_data_set_is_named_where_there_are_several(checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings(sequences=1, checkpoint=checkpoint, output=tmp_path)
    for changes, message in (
        ({}, "name one of first, other"),
        ({"unnorm_key": "frist"}, "did you mean 'first'"),
        ({"checkpoint": None, "unnorm_key": "first"}, "names a data set of the --checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            calvin_chains.main(replace(settings, **changes))


def test_a_policy_is_not_shown_black_pictures(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="black"):
        calvin_chains.main(
            Settings(sequences=1, checkpoint=checkpoint, unnorm_key="first", render="none", output=tmp_path)
        )
