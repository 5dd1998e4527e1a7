"""Suites by name, those of other people's modules too, and what is said when a name leads nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators import registry
from avavla_ray.simulators.base import SimulatorConfig, SuiteSpec
from avavla_ray.simulators.experts.expert import make_expert

OWN = """
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SuiteSpec

class Own:
    expert = "{module}:make_own_expert"

    def __init__(self, config):
        self.config, self.spec = config, self.suite_spec(config.suite)

    @classmethod
    def suite_spec(cls, suite):
        return SuiteSpec(suite, ("go", "stop"), max_steps=3, num_initial_states=2)

    @classmethod
    def identify(cls, config):
        if config.assets != "bundled":
            raise InputError("it has no assets: leave --assets out")
        return {{"data": "its own"}}

    def reset(self, task, *, initial_state=None, seed=0): ...

    def run_chunk(self, actions, *, record=False): ...

    def frames(self): ...

    def provenance(self): ...

    def close(self): ...

class Unhelpful(Own):
    expert = None

def make_own_expert(simulator, *, seed, noise):
    return ("expert of", simulator.config.suite, seed, noise)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module with a simulator that the registry has never heard of."""
    (tmp_path / "their_simulator.py").write_text(OWN.format(module="their_simulator"))
    (tmp_path / "their_broken_simulator.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_simulator"
    for name in ("their_simulator", "their_broken_simulator"):
        sys.modules.pop(name, None)


def test_a_suite_of_ones_own_needs_no_entry(own: str) -> None:
    suite = f"{own}:Own"
    assert registry.suite_spec(suite) == SuiteSpec(suite, ("go", "stop"), 3, 2)
    assert registry.identify(SimulatorConfig(suite=suite, tasks=(0, 1))) == {"data": "its own"}
    simulator = registry.make_simulator(SimulatorConfig(suite=suite))
    assert type(simulator) is registry.simulator_class(suite)
    assert make_expert(simulator, seed=3, noise=0.5) == ("expert of", suite, 3, 0.5)


def test_what_a_suite_of_ones_own_refuses(own: str) -> None:
    with pytest.raises(InputError, match="it has no assets"):
        registry.identify(SimulatorConfig(suite=f"{own}:Own", assets="official"))
    with pytest.raises(InputError, match=f"task 2 does not exist: {own}:Own has tasks 0 to 1"):
        registry.identify(SimulatorConfig(suite=f"{own}:Own", tasks=(0, 2)))
    with pytest.raises(InputError, match="has no scripted expert"):
        make_expert(registry.make_simulator(SimulatorConfig(suite=f"{own}:Unhelpful")))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_module:Own", "no module 'no_such_module' for no_such_module:Own: put its folder on PYTHONPATH"),
        ("their_simulator.inner:Own", "no module 'their_simulator.inner'"),
        ("their_simulator:Owm", "module their_simulator has no 'Owm': give it as package.module:Class"),
        ("their_simulator:", "'their_simulator:' names nothing in a module: give it as package.module:Class"),
        (":Own", "':Own' names nothing in a module"),
        (".their_simulator:Own", "names nothing in a module"),
        ("their_simulator:make_own_expert", "make_own_expert is no simulator: it has no suite_spec, identify, reset,"),
    ],
)
def test_a_place_that_leads_nowhere(own: str, place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.simulator_class(place)


def test_the_own_trouble_of_a_module_is_not_hidden(own: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        registry.load("their_broken_simulator:Own")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "tabeltop"}, "unknown suite 'tabeltop': did you mean 'tabletop'"),
        ({"suite": "chess"}, "unknown suite 'chess': known: calvin_a, "),
        ({"render": "quick"}, "unknown renderer 'quick'"),
        ({"image_size": 8}, "image size 8 is too small"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"settle_steps": -1}, "settle_steps -1 is negative"),
    ],
)
def test_a_config_that_suits_no_simulator(changes: dict, message: str) -> None:
    config = SimulatorConfig(**{"suite": "tabletop", **changes})
    for refuse in (registry.identify, registry.make_simulator):
        with pytest.raises(InputError, match=message):
            refuse(config)


@pytest.mark.parametrize("task", [-1, 15])
def test_a_task_that_does_not_exist(task: int) -> None:
    for refuse in (registry.identify, registry.make_simulator):
        with pytest.raises(InputError, match=f"task {task} does not exist: tabletop has tasks 0 to 14"):
            refuse(SimulatorConfig(suite="tabletop", tasks=(task,), render="none"))


def test_every_suite_has_its_simulator_without_importing_its_engine() -> None:
    assert set(registry.SUITES) == {
        *registry.LIBERO_SUITES, *registry.CALVIN_SUITES, *registry.CALVIN_CHAIN_SUITES, *registry.TABLETOP_SUITES,
    }  # fmt: skip
    code = (
        "import sys; from avavla_ray.simulators.registry import SUITES, simulator_class; "
        "from avavla_ray.simulators.experts.expert import make_expert; "
        "print(len({simulator_class(suite) for suite in SUITES}), "
        "sorted({'mujoco', 'pybullet', 'libero', 'robosuite', 'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4 []"
