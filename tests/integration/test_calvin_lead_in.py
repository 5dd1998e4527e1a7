"""Starts of tasks where another has just ended: against the fake calvin_env, and with the experts in the real one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

from actors.demonstrator import ExpertRecorder
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.calvin import adapter, lead_in
from avavla_ray.simulators.calvin.adapter import CalvinSimulator
from avavla_ray.simulators.calvin.environment import look
from avavla_ray.simulators.calvin.installation import HOW_TO_GET
from avavla_ray.simulators.calvin.lead_in import begin_after_another
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS, TASKS
from avavla_ray.simulators.experts.expert import check_lead_in
from tests.integration.test_calvin_real import real_root
from tests.support.fake_calvin import FAKE_ROOT, ButtonExpert, calvin_env_at

OPEN_DRAWER = TASKS.index("open_drawer")
CONFIG = SimulatorConfig(suite="calvin_d", image_size=32)
STEPS = 7  # after which the fake's oracle says that the task before is done


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[CalvinSimulator]:
    monkeypatch.setattr(lead_in, "make_expert", lambda simulator, **_: ButtonExpert(simulator))
    with calvin_env_at(FAKE_ROOT):
        made = CalvinSimulator(CONFIG)
        yield made
        made.close()


def tell_done(simulator: CalvinSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle says of every other task that it is done at its STEPS-th step."""
    asked: dict[str, int] = {}

    def done(name: str, *_: object) -> bool:
        asked[name] = asked.get(name, 0) + 1
        return name != "open_drawer" and asked[name] % STEPS == 0

    monkeypatch.setattr(simulator.oracle, "done", done)


def test_a_task_begins_where_another_ended(simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_done(simulator, monkeypatch)
    begun = begin_after_another(simulator, OPEN_DRAWER, seed=5, noise=0.0, speed=1.0)
    assert begun.instruction == INSTRUCTIONS["open_drawer"]
    assert begun.images.any(), "its first picture is taken"
    hand = simulator.robot_obs[:3]
    again = begin_after_another(simulator, OPEN_DRAWER, seed=5, noise=0.0, speed=1.0)
    np.testing.assert_array_equal(begun.images, again.images)
    np.testing.assert_array_equal(begun.proprio, again.proprio)
    simulator.reset(OPEN_DRAWER, seed=5)
    assert np.abs(simulator.robot_obs[:3] - hand).max() > 0.02, "the hand has been about"


def test_the_other_task_is_not_rendered(simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_done(simulator, monkeypatch)
    looks = []
    monkeypatch.setattr(adapter, "look", lambda env: looks.append(env) or look(env))
    begin_after_another(simulator, OPEN_DRAWER, seed=5, noise=0.0, speed=1.0)
    assert len(looks) == 1
    with simulator.unseen():
        assert not begin_after_another(simulator, OPEN_DRAWER, seed=5, noise=0.0, speed=1.0).images.any()
        assert not simulator.run_chunk(np.zeros((1, 7))).observation.images.any()
    assert len(looks) == 1


def test_an_expert_that_never_succeeds_is_a_failure(simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "max_steps", 4)
    monkeypatch.setattr(simulator.oracle, "done", lambda *_: False)
    with pytest.raises(SimulatorFailure, match="no task that open_drawer can follow"):
        begin_after_another(simulator, OPEN_DRAWER, seed=5, noise=0.0, speed=1.0)


def test_only_suites_whose_tasks_follow_on_each_other_have_lead_ins() -> None:
    check_lead_in("libero_object", 0.0)
    check_lead_in("calvin_d", 1.0)
    with pytest.raises(InputError, match="leave --lead-in out"):
        check_lead_in("libero_object", 0.5)
    with pytest.raises(InputError, match="lead-in 1.5 is no share"):
        check_lead_in("calvin_d", 1.5)


@pytest.mark.skipif(
    real_root() is None or importlib.util.find_spec("pybullet") is None,
    reason=f"no calvin_env with PyBullet: {HOW_TO_GET}",
)
def test_experts_demonstrate_from_there() -> None:
    """Those that begin after another task have the hand elsewhere than the rest."""
    with calvin_env_at(real_root()):
        recorder = ExpertRecorder(CONFIG, noise=0.0, lead_in=0.5)
        starts = []
        for seed in range(8):
            recording = recorder.record(OPEN_DRAWER, seed)
            assert recording.success
            starts.append(recording.proprio[0, :3])
        away = np.linalg.norm(np.array(starts) - np.median(starts, axis=0), axis=1) > 0.1
        assert np.flatnonzero(away).tolist() == [1, 3]
        recorder._simulator.close()
