"""Which machines each kind of actor asks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.async_ppo import AsyncPPO
from actors.cluster import submitted_environment
from actors.ppo_job import Settings, choose, configure
from avavla_ray.errors import InputError
from avavla_ray.machines import chosen, for_learners, for_simulators
from avavla_ray.provenance import provenance
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.opengl import check_opengl, choose_renderer


@pytest.fixture
def two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVAVLA_SIMULATORS_ON", "simulator")
    monkeypatch.setenv("AVAVLA_LEARNERS_ON", "learner")


def test_unset_they_run_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVAVLA_SIMULATORS_ON", raising=False)
    monkeypatch.setenv("AVAVLA_LEARNERS_ON", " ")
    assert (for_simulators(), for_learners(), chosen()) == ({}, {}, {})
    assert "machines" not in provenance(seed=0)


def test_a_simulator_takes_one_and_a_learner_next_to_nothing(two_kinds: None) -> None:
    assert for_simulators() == {"simulator": 1.0}
    assert for_learners() == {"learner": 0.01}
    assert provenance(seed=0)["machines"] == {"simulators": "simulator", "learners": "learner"} == chosen()


def test_rays_own_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVAVLA_LEARNERS_ON", "GPU")
    with pytest.raises(InputError, match="AVAVLA_LEARNERS_ON=GPU: Ray keeps that name"):
        chosen()


def test_a_trial_of_ppo_asks_for_all_of_its_machines(two_kinds: None) -> None:
    settings = Settings(num_runners=2, learners=2, placement="server", output=Path("x"))
    config = configure(settings, choose(settings), SimulatorConfig(suite="tabletop", tasks=(0,)))
    bundles = AsyncPPO.default_resource_request(config.to_dict()).bundles
    asked = [{name: share for name, share in bundle.items() if name != "CPU" and share} for bundle in bundles]
    assert asked == [{"learner": 0.01}, *[{"simulator": 1.0}] * 2, *[{"learner": 0.01}] * 3]


def test_what_the_submitter_has_set_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert submitted_environment() == {}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"env_vars": {"MUJOCO_GL": "osmesa"}}}')
    assert submitted_environment() == {"MUJOCO_GL": "osmesa"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {}, "runtime_env": {"working_dir": "gcs://x.zip"}}')
    assert submitted_environment() == {}


def test_a_machines_own_renderer_goes_before_that_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", "MUJOCO_EGL_DEVICE_ID": "0"}.items():
        monkeypatch.setenv(name, value)
    choose_renderer()
    assert (os.environ["MUJOCO_GL"], os.environ["MUJOCO_EGL_DEVICE_ID"]) == ("egl", "0")
    monkeypatch.setenv("AVAVLA_EGL_DEVICE", "2")
    monkeypatch.setenv("AVAVLA_GL", "osmesa")
    choose_renderer()
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "osmesa"
    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == "2"
    monkeypatch.setenv("AVAVLA_GL", "glfw")
    with pytest.raises(InputError, match="MUJOCO_GL=glfw cannot render headless"):
        check_opengl()
