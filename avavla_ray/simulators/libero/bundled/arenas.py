"""The rooms: a floor to work on, and a table in a room.

LIBERO's arena classes look up the textures, the table's parts and the cameras by the names used here.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from avavla_ray.simulators.libero.bundled.mjcf import add_material, numbers
from avavla_ray.simulators.libero.bundled.shapes import Vector

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
    """A room; with a table of wood when `table` says so."""

    path: str
    table: bool


SCENES: tuple[Scene, ...] = (
    Scene("scenes/libero_floor_base_style.xml", table=False),
    Scene("scenes/libero_tabletop_base_style.xml", table=True),
)


def scene_xml(scene: Scene) -> str:
    """The MJCF document of `scene`."""
    root = ET.Element("mujoco", model="table_arena" if scene.table else "floor_arena")
    asset = ET.SubElement(root, "asset")
    sky = {"name": "sky", "type": "skybox", "builtin": "gradient", "width": "64", "height": "64"}
    ET.SubElement(asset, "texture", sky, rgb1="0.9 0.9 1", rgb2="0.2 0.3 0.4")
    add_material(asset, "floorplane", "texplane", "../textures/light-gray-floor-tile.png", "2d", repeat=3)
    add_material(asset, "walls_mat", "tex-wall", "../textures/light-gray-plaster.png", "2d", repeat=3)
    world = ET.SubElement(root, "worldbody")
    # LIBERO hangs its placement regions on the body "floor" where there is no table, and robosuite looks for a geom
    # of that name in the world where there is one.
    ground = world if scene.table else ET.SubElement(world, "body", name="floor", pos="0 0 0")
    ET.SubElement(
        ground, "geom", name="floor", type="plane", pos="0 0 0", size="3 3 0.125", material="floorplane", group="1"
    )
    if scene.table:
        add_material(asset, "table_texture", "tex-table", "../textures/bundled_table.png", "cube")
        _add_table(world)
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


def _add_table(world: ET.Element) -> None:
    """LIBERO sets the sizes and places of the table's parts itself."""
    table = ET.SubElement(world, "body", name="table", pos="0 0 0.4")
    size = {"type": "box", "pos": "0 0 0", "size": "0.4 0.4 0.4"}
    ET.SubElement(table, "geom", size, name="table_collision", group="0", friction="1 0.005 0.0001")
    seen = {"material": "table_texture", "group": "1", "contype": "0", "conaffinity": "0"}
    ET.SubElement(table, "geom", {**size, **seen}, name="table_visual")
    ET.SubElement(table, "site", name="table_top", pos="0 0 0.4", size="0.001", rgba="0 0 0 0")
    for leg in range(1, 5):
        shape = {"type": "cylinder", "pos": "0 0 0", "size": "0.05 0.1"}
        ET.SubElement(table, "geom", {**shape, **seen}, name=f"table_leg{leg}_visual")
