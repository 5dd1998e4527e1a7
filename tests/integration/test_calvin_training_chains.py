"""Playing CALVIN's training chains: against the fake calvin_env, and against the real one where there is one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.calvin.experts import make_calvin_expert
from avavla_ray.simulators.calvin.installation import HOW_TO_GET
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS
from avavla_ray.simulators.calvin.training_chains import CalvinTrainingChains
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.simulators.registry import make_simulator
from tests.integration.test_calvin_real import real_root
from tests.support.fake_calvin import FAKE_ROOT, calvin_env_at

STILL = np.array([[0, 0, 0, 0, 0, 0, 1.0]])
CONFIG = SimulatorConfig(suite="calvin_d_chains", image_size=64, max_steps=12)


@pytest.fixture
def chains() -> Iterator[CalvinTrainingChains]:
    with calvin_env_at(FAKE_ROOT):
        simulator = make_simulator(CONFIG)
        assert isinstance(simulator, CalvinTrainingChains)
        yield simulator
        simulator.close()


def finish_task(simulator: CalvinTrainingChains, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle says of the next step that the task in hand is done."""
    wanted = simulator._inner.task_name
    monkeypatch.setattr(simulator._inner.oracle, "done", lambda name, *_: name == wanted)


def test_a_chain_is_one_episode_with_a_reward_a_task(chains, monkeypatch: pytest.MonkeyPatch) -> None:
    observation = chains.reset(2, seed=4)
    assert len(chains.tasks) == 3
    rewards = []
    for place, task in enumerate(chains.tasks):
        assert observation.instruction == INSTRUCTIONS[task]
        monkeypatch.setattr(chains._inner.oracle, "done", lambda *_: False)
        slow = chains.run_chunk(np.repeat(STILL, 5, 0))
        assert (slow.reward, slow.success, slow.truncated, slow.duration) == (0.0, False, False, 5)
        finish_task(chains, monkeypatch)
        result = chains.run_chunk(np.repeat(STILL, 8, 0))
        assert result.duration == 1  # the rest of the chunk was meant for the task that is done
        rewards.append(result.reward)
        observation = result.observation
        assert result.success == (place == 2)
        assert not result.truncated
    assert rewards == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="no episode is running"):
        chains.run_chunk(STILL)


def test_each_task_has_its_own_step_limit_and_missing_it_ends_the_chain(
    chains, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains.reset(1, seed=4)
    monkeypatch.setattr(chains._inner.oracle, "done", lambda *_: False)
    chains.run_chunk(np.repeat(STILL, 10, 0))
    finish_task(chains, monkeypatch)
    assert not chains.run_chunk(STILL).done
    monkeypatch.setattr(chains._inner.oracle, "done", lambda *_: False)
    assert not chains.run_chunk(np.repeat(STILL, 11, 0)).done  # more than 12 in all
    last = chains.run_chunk(STILL)
    assert (last.truncated, last.success, last.reward) == (True, False, 0.0)


def test_a_seed_is_a_start_and_what_does_not_exist_is_refused(chains) -> None:
    def start(seed: int) -> tuple:
        chains.reset(4, seed=seed)
        return chains.tasks, *chains._inner.scene_obs, *chains._inner.robot_obs

    first = start(3)
    assert start(3) == first
    assert start(4) != first
    with pytest.raises(InputError, match="task 5 does not exist"):
        chains.reset(5)
    with pytest.raises(InputError, match="chains to learn from are drawn"):
        chains.reset(0, initial_state=0)
    assert chains.provenance()["suite"] == "calvin_d_chains"


def test_chains_can_be_isolated() -> None:
    with calvin_env_at(FAKE_ROOT):
        simulator = IsolatedSimulator(make_simulator, CONFIG)
        try:
            assert simulator.reset(4, seed=3).instruction
            assert simulator.run_chunk(STILL).duration == 1
        finally:
            simulator.close()


@pytest.mark.skipif(
    real_root() is None or importlib.util.find_spec("pybullet") is None,
    reason=f"no calvin_env with PyBullet: {HOW_TO_GET}",
)
def test_the_experts_walk_real_chains() -> None:
    """Most of them: an expert may fail, and then the chain ends as it should."""
    root = real_root()
    assert root is not None
    with calvin_env_at(root):
        simulator = CalvinTrainingChains(SimulatorConfig(suite="calvin_d_chains", render="none", image_size=32))
        earned = possible = 0
        for seed in range(4):
            observation, result = simulator.reset(2, seed=seed), None
            while result is None or not result.done:
                expert, instruction = make_calvin_expert(simulator._inner), observation.instruction
                while observation.instruction == instruction and not (result is not None and result.done):
                    result = simulator.run_chunk(expert.act()[None])
                    observation = result.observation
                    earned += result.reward
                    if result.reward:
                        break
            possible += 3
            assert result.success or result.truncated
        simulator.close()
    assert earned >= 0.6 * possible
