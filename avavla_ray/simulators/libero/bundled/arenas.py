"""The arenas: a floor to work on, and tables in several rooms.

LIBERO's arena classes look up the textures, the table's parts and the cameras by the names used here.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from avavla_ray.simulators.libero.bundled.mjcf import (
    FIXTURE_CONTACT,
    Body,
    Material,
    add_body,
    add_material,
    add_shape,
    numbers,
)
from avavla_ray.simulators.libero.bundled.rooms import COFFEE_TABLE, DESK, KITCHEN, LIVING_ROOM, STUDY
from avavla_ray.simulators.libero.bundled.shapes import Shape, Vector

ROOM = ((-2.0, 3.0), (-3.0, 3.0), 3.0)
WALL_HALF_THICKNESS = 0.01
LIGHTS: tuple[Vector, ...] = ((1.0, 1.0, 4.0), (-3.0, -3.0, 4.0))
# Shadows would cost a second pass over the scene; ambient light keeps the sides of things from going black.
LIGHT = {
    "directional": "false",
    "castshadow": "false",
    "diffuse": "0.75 0.75 0.75",
    "specular": "0.3 0.3 0.3",
    "ambient": "0.15 0.15 0.15",
}
# LIBERO places the agent camera itself; these serve people. Name: position, quaternion (w, x, y, z).
CAMERAS: dict[str, tuple[Vector, tuple[float, float, float, float]]] = {
    "frontview": ((1.0, 0.0, 1.45), (0.56, 0.43, 0.43, 0.56)),
    "birdview": ((-0.2, 0.0, 3.0), (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))),
    "agentview": ((0.5, 0.0, 1.35), (0.653, 0.271, 0.271, 0.653)),
    "sideview": ((0.0, 1.3, 1.5), (0.0, 0.0, 0.5911, 0.8066)),
}


@dataclass(frozen=True)
class Scene:
    """A room to work in.

    Attributes:
        path: of its XML below the assets root.
        wood: what its table shows; None where the work is done on the floor.
        table: the table itself; None where LIBERO's arena class gives a plain one its size and place.
        ground_is_body: the floor is a body of its own, on which LIBERO hangs placement regions; elsewhere it is a
            geom of the world, where robosuite looks for it.
        background: what stands along the walls; only looked at.
    """

    path: str
    wood: Material | None = None
    table: Body | None = None
    ground_is_body: bool = False
    background: tuple[Shape, ...] = ()


PALE = Material("table_texture", "textures/bundled_table.png")
SCENES: tuple[Scene, ...] = (
    Scene("scenes/libero_floor_base_style.xml", ground_is_body=True),
    Scene("scenes/libero_tabletop_base_style.xml", PALE),
    Scene("scenes/libero_kitchen_tabletop_base_style.xml", PALE, background=KITCHEN),
    Scene(
        "scenes/libero_living_room_tabletop_base_style.xml",
        Material("table_texture", "textures/bundled_dark_table.png", flat=True),
        COFFEE_TABLE,
        ground_is_body=True,
        background=LIVING_ROOM,
    ),
    Scene(
        "scenes/libero_study_base_style.xml",
        Material("table_texture", "textures/bundled_desk.png"),
        DESK,
        background=STUDY,
    ),
)


def scene_xml(scene: Scene) -> str:
    """The MJCF document of `scene`."""
    root = ET.Element("mujoco", model=scene.path.rsplit("/", 1)[-1].removesuffix("_base_style.xml"))
    asset = ET.SubElement(root, "asset")
    sky = {"name": "sky", "type": "skybox", "builtin": "gradient", "width": "64", "height": "64"}
    ET.SubElement(asset, "texture", sky, rgb1="0.9 0.9 1", rgb2="0.2 0.3 0.4")
    # The arena classes put the pictures of the problem's style in place of these two.
    add_material(asset, "floorplane", "texplane", "../textures/light-gray-floor-tile.png", "2d", repeat=3)
    add_material(asset, "walls_mat", "tex-wall", "../textures/light-gray-plaster.png", "2d", repeat=3)
    world = ET.SubElement(root, "worldbody")
    ground = ET.SubElement(world, "body", name="floor", pos="0 0 0") if scene.ground_is_body else world
    ET.SubElement(
        ground, "geom", name="floor", type="plane", pos="0 0 0", size="3 3 0.125", material="floorplane", group="1"
    )
    if scene.wood is not None:
        add_material(asset, scene.wood.name, "tex-table", f"../{scene.wood.file}", "2d" if scene.wood.flat else "cube")
        if scene.table is None:
            _add_plain_table(world, scene.wood.name)
        else:
            add_body(world, asset, scene.table, FIXTURE_CONTACT)
    for index, shape in enumerate(scene.background):
        add_shape(world, asset, shape, f"background_{index}", {})
    _add_walls(world)
    for index, place in enumerate(LIGHTS):
        light = ET.SubElement(world, "light", name=f"light{index + 1}", pos=numbers(place), dir="0 -0.15 -1")
        light.attrib.update(LIGHT)
    for name, (place, turn) in CAMERAS.items():
        ET.SubElement(world, "camera", name=name, mode="fixed", pos=numbers(place), quat=numbers(turn))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add_walls(world: ET.Element) -> None:
    (rear, front), (right, left), height = ROOM
    across, along, middle = (left - right) / 2, (front - rear) / 2, (front + rear) / 2
    for name, centre, turn, width in (
        ("rear", (rear, 0.0), (0.5, 0.5, 0.5, 0.5), across),
        ("front", (front, 0.0), (0.5, 0.5, -0.5, -0.5), across),
        ("left", (middle, left), (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0), along),
        ("right", (middle, right), (math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0), along),
    ):
        wall = ET.SubElement(world, "geom", name=f"wall_{name}_visual", type="box", material="walls_mat")
        wall.set("pos", numbers((*centre, height / 2)))
        wall.set("quat", numbers(turn))
        wall.set("size", numbers((width, height / 2, WALL_HALF_THICKNESS)))
        wall.attrib.update(group="1", contype="0", conaffinity="0")


def _add_plain_table(world: ET.Element, wood: str) -> None:
    """LIBERO sets the sizes and places of the table's parts itself."""
    table = ET.SubElement(world, "body", name="table", pos="0 0 0.4")
    size = {"type": "box", "pos": "0 0 0", "size": "0.4 0.4 0.4"}
    ET.SubElement(table, "geom", size, name="table_collision", group="0", friction="1 0.005 0.0001")
    seen = {"material": wood, "group": "1", "contype": "0", "conaffinity": "0"}
    ET.SubElement(table, "geom", {**size, **seen}, name="table_visual")
    ET.SubElement(table, "site", name="table_top", pos="0 0 0.4", size="0.001", rgba="0 0 0 0")
    for leg in range(1, 5):
        shape = {"type": "cylinder", "pos": "0 0 0", "size": "0.05 0.1"}
        ET.SubElement(table, "geom", {**shape, **seen}, name=f"table_leg{leg}_visual")
