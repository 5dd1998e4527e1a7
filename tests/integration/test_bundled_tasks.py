"""Tasks on the bundled assets: published initial states fit, things stand still, and every goal can be reached.

All 130 tasks take minutes: python -m avavla_ray.simulators.libero.bundled.check. Here are some that together hold every
class of object and fixture, every room and every predicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.libero.adapter import LiberoSimulator
from avavla_ray.simulators.libero.bundled import check
from avavla_ray.simulators.libero.bundled.contact_sheet import SheetSettings, main
from avavla_ray.simulators.libero.bundled.goals import GoalState
from avavla_ray.simulators.libero.suites import initial_states, task_at
from tests.support.task_files import all_task_files, read

pytestmark = pytest.mark.libero

CROSS_SECTION = {
    "libero_spatial": (0,),
    "libero_object": (3, 7),
    "libero_goal": (3, 5, 9),
    "libero_10": (1, 2, 3, 5, 9),
    "libero_90": (16, 35, 39, 41, 63, 85, 89),
}
# Names, in the order of the state vector, after the robot's own.
SPATIAL_JOINTS = [
    "akita_black_bowl_1_joint0", "akita_black_bowl_2_joint0", "cookies_1_joint0",
    "glazed_rim_porcelain_ramekin_1_joint0", "plate_1_joint0", "wooden_cabinet_1_top_level",
    "wooden_cabinet_1_middle_level", "wooden_cabinet_1_bottom_level", "flat_stove_1_button",
]  # fmt: skip
OBJECT_JOINTS_OF_TASK_0 = [
    f"{name}_1_joint0"
    for name in ("alphabet_soup", "basket", "salad_dressing", "cream_cheese", "milk", "tomato_sauce", "butter")
]


def simulator_of(suite: str, assets: str = "bundled") -> LiberoSimulator:
    return LiberoSimulator(SimulatorConfig(suite=suite, assets=assets, render="none"))


def poses(simulator: LiberoSimulator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position and up direction of each object, in the world."""
    bodies = simulator.env.env.obj_body_id
    data = simulator.data
    return {name: (data.xpos[body].copy(), data.xmat[body].reshape(3, 3).copy()) for name, body in bodies.items()}


def free_joints(simulator: LiberoSimulator) -> list[str]:
    names = [simulator.model.joint(i).name for i in range(simulator.model.njnt)]
    return [name for name in names if not name.startswith(("robot0", "gripper0"))]


@pytest.fixture(params=CROSS_SECTION)
def simulator(request: pytest.FixtureRequest) -> Iterator[LiberoSimulator]:
    simulator = simulator_of(request.param)
    yield simulator
    simulator.close()


def test_tasks_load_a_state_stand_still_and_can_be_done(simulator: LiberoSimulator) -> None:
    rng = np.random.default_rng(0)
    for task in CROSS_SECTION[simulator.config.suite]:
        report = check.check_task(simulator, task, states=1, reference=None)
        assert not report.faults, report
        assert report.states == 1
        simulator.reset(task, initial_state=0)
        settled = poses(simulator)
        simulator.run_chunk(rng.uniform(-1, 1, (10, 7)).astype(np.float32) * [1, 1, 0.2, 1, 1, 1, 1])
        for name, (place, turn) in poses(simulator).items():
            before, turned = settled[name]
            assert np.linalg.norm(place - before) < 0.003, (task, name)
            assert np.abs(turn - turned).max() < 0.03, (task, name)
        depth = [contact.dist for contact in simulator.data.contact[: simulator.data.ncon]]
        assert min(depth) > -0.003, task


def test_the_cross_section_holds_every_class_and_every_predicate() -> None:
    chosen = [read(task_at(suite, task)) for suite, tasks in CROSS_SECTION.items() for task in tasks]
    for of in (
        lambda file: set(file.kinds.values()),
        lambda file: {goal[0] for goal in file.goals},
    ):
        assert set().union(*map(of, chosen)) == set().union(*map(of, all_task_files()))


def test_a_goal_out_of_reach_and_a_flung_object_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator = simulator_of("libero_object")
    simulator.reset(3, initial_state=0)
    goals = GoalState(simulator)
    assert goals.goals == (("in", "bbq_sauce_1", "basket_1_contain_region"),)
    assert not goals.holds(goals.goals[0])
    region = simulator.env.env.object_sites_dict["basket_1_contain_region"]
    size, region.size = region.size, np.zeros(3)
    assert goals.reach() == goals.goals
    region.size = size
    assert goals.reach() == ()
    assert goals.holds(goals.goals[0])
    simulator.close()

    monkeypatch.setattr(check, "FLUNG", -1.0)
    report = tmp_path / "report.json"
    with pytest.raises(SystemExit, match="1"):
        check.main(check.CheckSettings(("libero_object",), tasks=(3,), states=1, report=report))
    assert "is flung 0 cm in state 0" in report.read_text()
    line, summary = capsys.readouterr().out.splitlines()
    assert line.startswith("libero_object  3 FAULTY 1 states")
    assert summary == "0 of 1 tasks are good"


def test_state_vectors_are_laid_out_as_published() -> None:
    simulator = simulator_of("libero_spatial")
    simulator.reset(3, initial_state=0)
    assert free_joints(simulator) == SPATIAL_JOINTS
    simulator.close()
    simulator = simulator_of("libero_object")
    simulator.reset(0, initial_state=0)
    assert free_joints(simulator) == OBJECT_JOINTS_OF_TASK_0
    simulator.close()


@pytest.mark.parametrize(
    ("suite", "starts"),
    [("libero_spatial", ((2, 4), (0, 18))), ("libero_10", ((0, 45),)), ("libero_90", ((4, 42), (25, 37)))],
)
def test_things_that_start_inside_each_other_do_not_jump(suite: str, starts: tuple[tuple[int, int], ...]) -> None:
    """Bowl and plate, two packets, bowl and packet, bottle and handle: the originals part by 6 cm to a metre."""
    simulator = simulator_of(suite)
    for task, state in starts:
        simulator.reset(task, initial_state=state)
        published = check.published_places(simulator, initial_states(task_at(suite, task))[state])
        slide, name = check.farthest_slide(check.resting_places(simulator), published)
        assert slide < 0.1, (task, name)
    simulator.close()


def test_the_contact_sheet_shows_the_tasks_in_colour(tmp_path: Path) -> None:
    suites = ("libero_object", "libero_spatial")
    main(SheetSettings(tmp_path / "sheet.png", suites=suites, tasks=(0, 7), size=96, columns=2, wrist=True))
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    height, width, _ = picture.shape
    assert width == 4 * 96
    caption = height // 2 - 96
    assert 20 < caption < 60
    for row in np.split(picture, 2):
        for cell in np.split(row, 4, axis=1):
            assert (np.ptp(cell[caption:], axis=2) > 60).mean() > 0.005
        for label in np.split(row[:caption], 2, axis=1):
            assert 0.02 < (label < 128).mean() < 0.3


@pytest.mark.real_geometry
@pytest.mark.parametrize(
    ("suite", "tasks"),
    [
        ("libero_object", (0, 3, 8)),
        ("libero_spatial", (0, 4)),
        ("libero_goal", (9,)),
        ("libero_10", (3, 4, 9)),
        pytest.param("libero_90", (40, 62, 83, 88), marks=pytest.mark.long),
    ],
)
def test_objects_come_to_rest_where_the_originals_do(suite: str, tasks: tuple[int, ...], real_assets: Path) -> None:
    for task in tasks:
        ours, originals = simulator_of(suite), simulator_of(suite, str(real_assets))
        rest = []
        for simulator in (ours, originals):
            simulator.reset(task, initial_state=0, seed=0)
            rest.append(poses(simulator))
        assert free_joints(ours) == free_joints(originals)
        for name, (place, turn) in rest[0].items():
            true_place, true_turn = rest[1][name]
            assert np.linalg.norm(place - true_place) < 0.003, (task, name)
            assert np.abs(turn - true_turn).max() < 0.02, (task, name)
        sites = [
            {s.model.site(i).name: s.data.site_xpos[i].copy() for i in range(s.model.nsite)} for s in (ours, originals)
        ]
        assert set(sites[0]) == set(sites[1])
        for name, place in sites[0].items():
            assert np.linalg.norm(place - sites[1][name]) < 0.005, (task, name)
        ours.close()
        originals.close()
