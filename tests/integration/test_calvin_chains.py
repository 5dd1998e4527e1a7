"""Chains of CALVIN tasks, played against a fake calvin_env (tests/support/fake_calvin_env): no physics, same API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation import calvin_chains
from avavla_ray.evaluation.calvin_chains import PolicyActor, Settings, play_chain
from avavla_ray.evaluation.chain_results import ChainRecord
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.calvin.adapter import CalvinSimulator
from avavla_ray.simulators.calvin.initial_states import published_conditions
from avavla_ray.simulators.calvin.sequences import Sequence
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS
from avavla_ray.simulators.registry import make_simulator
from tests.support.fake_calvin import BUTTON, FAKE_ROOT, calvin_env_at, towards
from tests.support.policies import some_statistics, stirred_policy, tiny

CONFIG = SimulatorConfig(suite="calvin_d", image_size=64)
STILL = np.array([[0, 0, 0, 0, 0, 0, 1.0]])
LED_CHAIN = Sequence(published_conditions()[96], ("turn_off_led", "turn_on_led", "open_drawer", "stack_block", "x"))


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with calvin_env_at(FAKE_ROOT):
        yield


@pytest.fixture
def simulator() -> Iterator[CalvinSimulator]:
    made = make_simulator(CONFIG)
    assert isinstance(made, CalvinSimulator)
    yield made
    made.close()


def test_a_chain_goes_on_in_the_same_scene_with_a_new_start_and_new_time(simulator: CalvinSimulator) -> None:
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
    """Presses the LED's button at every task; remembers which tasks began."""

    def __init__(self) -> None:
        self.began: list[str] = []

    def begin(self, simulator: CalvinSimulator) -> None:
        self.began.append(simulator.task_name)
        self.simulator, self.up = simulator, True

    def chunk(self, observation: Any, record: ChainRecord) -> np.ndarray:
        above = np.add(BUTTON, (0, 0, 0.1))
        if self.up and np.abs(self.simulator.robot_obs[:3] - above).max() < 0.01:
            self.up = False
        record.latent_steps.append(1)
        return towards(self.simulator, above if self.up else BUTTON)


def test_a_chain_ends_at_the_first_task_that_fails(simulator: CalvinSimulator) -> None:
    actor = ButtonPresser()
    record = play_chain(simulator, actor, 7, LED_CHAIN)
    assert actor.began == ["turn_off_led", "turn_on_led", "open_drawer"]
    assert (record.sequence, record.completed, record.error) == (7, 2, None)
    assert record.steps[2] == 360
    assert len(record.latent_steps) == sum(record.steps)


def test_a_chain_that_breaks_says_so(simulator: CalvinSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = ButtonPresser()
    monkeypatch.setattr(simulator, "next_task", lambda: (_ for _ in ()).throw(SimulatorFailure("it broke")))
    record = play_chain(simulator, actor, 0, LED_CHAIN)
    assert (record.completed, record.error) == (1, "it broke")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="cloned", provenance={})
    return folder


def test_a_checkpoint_plays_chains_and_goes_on_where_it_stopped(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chains = (LED_CHAIN, LED_CHAIN)
    monkeypatch.setattr("avavla_ray.simulators.calvin.sequences.published_sequences", lambda: chains)
    begun = []
    begin = PolicyActor.begin
    monkeypatch.setattr(PolicyActor, "begin", lambda self, simulator: begun.append(1) or begin(self, simulator))
    settings = Settings(sequences=1, checkpoint=checkpoint, depth=1, render="fast", max_steps=12, output=tmp_path)
    calvin_chains.main(settings)
    with pytest.raises(InputError, match="--resume"):
        calvin_chains.main(settings)
    calvin_chains.main(replace(settings, sequences=2, resume=True))
    assert len(begun) == 2  # the first chain was played once
    result = json.loads((tmp_path / "chains.json").read_text())
    assert (result["chains"], result["actor"], result["exit"]) == (2, "cloned", "depth_1")
    assert result["provenance"]["simulator"]["calvin_env_behaves_like"] == "main"
    assert "12 steps a task instead of 360" in result["provenance"]["deviations"]
    assert result["decisions"] > 0
    assert result["mean_latent_steps"] == 1.0
    assert "average length" in capsys.readouterr().out
    with pytest.raises(InputError, match="another evaluation"):
        calvin_chains.main(replace(settings, resume=True, max_steps=13))


def test_a_policy_is_not_shown_black_pictures(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="black"):
        calvin_chains.main(Settings(sequences=1, checkpoint=checkpoint, render="none", output=tmp_path))
