"""All 20 tasks on the bundled assets: published initial states fit, and things stand still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.libero.adapter import LiberoSimulator
from avavla_ray.simulators.libero.bundled.contact_sheet import CAPTION_HEIGHT, SheetSettings, main

pytestmark = pytest.mark.libero

# Seven objects with free joints; four objects and a bowl more, three drawers and a knob. The robot has nine joints.
SIZES = {
    "libero_object": (9 + 7 * 7, 9 + 7 * 6),
    "libero_spatial": (9 + 5 * 7 + 4, 9 + 5 * 6 + 4),
    "libero_goal": (9 + 4 * 7 + 4, 9 + 4 * 6 + 4),
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


@pytest.mark.parametrize("suite", SIZES)
def test_every_task_loads_its_first_initial_state_and_its_objects_stand_still(suite: str) -> None:
    simulator = simulator_of(suite)
    rng = np.random.default_rng(0)
    for task in range(len(simulator.spec.instructions)):
        simulator.reset(task, initial_state=0)
        assert (simulator.model.nq, simulator.model.nv) == SIZES[suite], task
        settled = poses(simulator)
        simulator.run_chunk(rng.uniform(-1, 1, (10, 7)).astype(np.float32) * [1, 1, 0.2, 1, 1, 1, 1])
        for name, (place, turn) in poses(simulator).items():
            before, turned = settled[name]
            assert np.linalg.norm(place - before) < 0.003, (task, name)
            assert np.abs(turn - turned).max() < 0.03, (task, name)
        depth = [contact.dist for contact in simulator.data.contact[: simulator.data.ncon]]
        assert min(depth) > -0.003, task
    simulator.close()


def test_state_vectors_are_laid_out_as_published() -> None:
    simulator = simulator_of("libero_spatial")
    simulator.reset(3, initial_state=0)
    assert free_joints(simulator) == SPATIAL_JOINTS
    simulator.close()
    simulator = simulator_of("libero_object")
    simulator.reset(0, initial_state=0)
    assert free_joints(simulator) == OBJECT_JOINTS_OF_TASK_0
    simulator.close()


@pytest.mark.parametrize(("suite", "task", "state"), [("libero_spatial", 2, 4), ("libero_spatial", 0, 18)])
def test_bowls_that_start_inside_a_plates_rim_do_not_jump(suite: str, task: int, state: int) -> None:
    """In these published states bowl and plate overlap; the originals are pushed apart by up to 6 cm."""
    simulator = simulator_of(suite)
    simulator.reset(task, initial_state=state)
    start = simulator_of(suite)
    start.config = SimulatorConfig(suite=suite, image_size=16, settle_steps=0)
    start.reset(task, initial_state=state)
    for name, (place, _) in poses(simulator).items():
        assert np.linalg.norm((place - poses(start)[name][0])[:2]) < 0.05, name
    simulator.close()
    start.close()


def test_the_contact_sheet_shows_the_tasks_in_colour(tmp_path: Path) -> None:
    suites = ("libero_object", "libero_spatial")
    main(SheetSettings(tmp_path / "sheet.png", suites=suites, tasks=(0, 7), size=96, columns=2))
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    assert picture.shape == (2 * (96 + CAPTION_HEIGHT), 4 * 96, 3)
    saturation = picture.max(2) - picture.min(2)
    for row in np.split(saturation, 2):
        for cell in np.split(row[CAPTION_HEIGHT:], 4, axis=1):
            assert (cell > 60).mean() > 0.005


@pytest.mark.real_geometry
@pytest.mark.parametrize(("suite", "tasks"), [("libero_object", (0, 3, 8)), ("libero_spatial", (0, 4))])
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
