"""Points of collision geoms, in the world."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from avavla_ray.simulators.experts.geometry import SolidPoints, subtree

SCENE = """
<mujoco>
  <worldbody>
    <body name="other" pos="5 0 0"><geom type="box" size="1 1 1"/></body>
    <body name="thing" pos="1 2 3" euler="0 0 90">
      <freejoint/>
      <geom type="box" size="0.1 0.2 0.3"/>
      <geom type="sphere" size="9" contype="0" conaffinity="0"/>
      <body name="part" pos="1 0 0"><geom type="cylinder" size="0.1 0.4"/></body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_a_subtree_holds_children_and_nothing_else(scene) -> None:
    model, _ = scene
    thing, part = model.body("thing").id, model.body("part").id
    assert subtree(model, thing) == {thing, part}
    assert subtree(model, part) == {part}


def test_corners_are_where_the_solid_geoms_are(scene) -> None:
    model, data = scene
    points = SolidPoints(model, model.body("thing").id).world(data)
    assert points.shape == (16, 3)
    # Turned by 90 degrees: the part, 1 m along x in the body, is 1 m along y in the world.
    assert points.min(0) == pytest.approx([0.8, 1.9, 2.6])
    assert points.max(0) == pytest.approx([1.2, 3.1, 3.4])


def test_points_move_with_the_body(scene) -> None:
    model, data = scene
    solid = SolidPoints(model, model.body("thing").id)
    before = solid.world(data)
    data.qpos[:3] += [0.5, 0, -1]
    mujoco.mj_forward(model, data)
    assert solid.world(data) - before == pytest.approx(np.tile([0.5, 0, -1], (16, 1)))


def test_a_lattice_is_as_dense_as_asked(scene) -> None:
    model, data = scene
    points = SolidPoints(model, model.body("other").id, spacing=0.25).world(data)
    assert len(points) == 9**3
    assert np.diff(np.unique(points[:, 0].round(6))).max() <= 0.25


def test_a_body_without_solid_geoms_has_no_points() -> None:
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><body name='ghost'/></worldbody></mujoco>")
    assert SolidPoints(model, model.body("ghost").id).world(mujoco.MjData(model)).shape == (0, 3)
