"""Writes an object's table row as the MJCF that LIBERO's object classes load.

LIBERO wants `worldbody/body/body[name=object]`, the sites `bottom_site`, `top_site` and `horizontal_radius_site` on the
outer body (they place the object), and group 0 for what collides, group 1 for what is seen.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from avavla_ray.simulators.libero.bundled.colours import COLOURS
from avavla_ray.simulators.libero.bundled.meshes import lathe_mesh, prism_mesh, tube_mesh
from avavla_ray.simulators.libero.bundled.shapes import Box, Lathe, Prism, Shape, Vector, quaternion, volume

# Contact of every LIBERO object: hard, grippy, and heavy enough only through its volume.
CONTACT = {"solimp": "0.998 0.998 0.001", "solref": "0.001 1", "friction": "0.95 0.3 0.1"}
# Light things that published states push a few millimetres into others would be thrown metres far by hard contacts.
GENTLE_CONTACT = {**CONTACT, "solref": "0.02 1", "solmix": "100"}
FIXTURE_DENSITY = 100.0
# A fixture's parts touch hands and objects, never each other: their joints' ranges keep them apart, and looking for
# contacts between a drawer and its frame would cost more than everything else on the table.
FIXTURE_CONTACT = {**CONTACT, "contype": "0", "conaffinity": "1"}


@dataclass(frozen=True)
class Site:
    """A box (or, flat and round, a disc) that a predicate or a visual effect refers to by name."""

    name: str
    centre: Vector
    size: tuple[float, ...]
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    kind: str = "box"
    rgba: str = "0 0 0 0"


@dataclass(frozen=True)
class Joint:
    """A drawer's slide or a knob's hinge about an axis through the body's origin."""

    name: str
    kind: str
    axis: Vector
    range: tuple[float, float]
    damping: float


@dataclass(frozen=True)
class Body:
    """A rigid part and what hangs on it. `inertia` = (mass, moment about every axis) overrides the boxes' own."""

    name: str
    shapes: tuple[Shape, ...] = ()
    sites: tuple[Site, ...] = ()
    joint: Joint | None = None
    inertia: tuple[float, float] | None = None
    centre: Vector = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] | None = None
    children: tuple[Body, ...] = ()


@dataclass(frozen=True)
class Material:
    """What a shape shows: a picture below the assets root, on each face of a box or across a prism (`flat`)."""

    name: str
    file: str
    flat: bool = False


@dataclass(frozen=True)
class Item:
    """An object of the bundled set: one row of a table.

    Attributes:
        path: of its XML below the assets root, as LIBERO's class of that object loads it.
        body: with the name "object".
        mass: kg, spread evenly over the solid boxes of the body; None for fixtures, which never move.
        gentle: its contacts part slowly where it starts inside something else.
        bottom, top: heights of the sites that LIBERO's placement uses. radius: of the circle it keeps free.
    """

    path: str
    body: Body
    mass: float | None
    bottom: float
    top: float
    radius: float
    materials: tuple[Material, ...] = ()
    gentle: bool = False


def numbers(values: Iterable[float]) -> str:
    """Space-separated, 0.01 mm or 1e-5 exact, without minus zero."""
    return " ".join(f"{round(float(value), 5) + 0.0:g}" for value in values)


def item_xml(item: Item) -> str:
    """The MJCF document of `item`."""
    name = item.body.name if item.body.name != "object" else item.path.rsplit("/", 1)[-1].removesuffix(".xml")
    root = ET.Element("mujoco", model=name)
    # As in robosuite's base model: what is only seen carries no mass.
    ET.SubElement(root, "compiler", angle="radian", inertiagrouprange="0 0")
    asset = ET.SubElement(root, "asset")
    for material in item.materials:
        file = "../" * item.path.count("/") + material.file
        add_material(asset, material.name, f"tex-{material.name}", file, "2d" if material.flat else "cube")
    outer = ET.SubElement(ET.SubElement(root, "worldbody"), "body")
    solid = FIXTURE_CONTACT if item.mass is None else GENTLE_CONTACT if item.gentle else CONTACT
    density = FIXTURE_DENSITY if item.mass is None else item.mass / volume(item.body.shapes)
    add_body(outer, asset, item.body, {**solid, "density": f"{density:.6g}"})
    for site, centre in (
        ("bottom_site", (0, 0, item.bottom)),
        ("top_site", (0, 0, item.top)),
        ("horizontal_radius_site", (item.radius, item.radius, 0)),
    ):
        ET.SubElement(outer, "site", name=site, pos=numbers(centre), size="0.005", rgba="0 0 0 0")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def add_material(asset: ET.Element, name: str, texture: str, file: str, kind: str, repeat: int = 1) -> None:
    """Append a texture and a dull material that shows it; more than one `repeat` counts repeats a metre."""
    ET.SubElement(asset, "texture", name=texture, type=kind, file=file)
    material = ET.SubElement(asset, "material", name=name, texture=texture, texrepeat=f"{repeat} {repeat}")
    material.attrib.update(specular="0.1", shininess="0.1", texuniform="true" if repeat > 1 else "false")


def add_body(parent: ET.Element, asset: ET.Element, body: Body, solid: dict[str, str]) -> None:
    """Append `body` and all that hangs on it to `parent`; see `add_shape`."""
    element = ET.SubElement(parent, "body", name=body.name, pos=numbers(body.centre))
    if body.quaternion is not None:
        element.set("quat", numbers(body.quaternion))
    if body.inertia is not None:
        mass, moment = body.inertia
        ET.SubElement(element, "inertial", pos="0 0 0", mass=f"{mass:g}", diaginertia=numbers([moment] * 3))
    if body.joint is not None:
        joint = body.joint
        ET.SubElement(
            element,
            "joint",
            name=joint.name,
            type=joint.kind,
            axis=numbers(joint.axis),
            limited="true",
            range=numbers(joint.range),
            damping=f"{joint.damping:g}",
        )
    for site in body.sites:
        ET.SubElement(
            element,
            "site",
            name=site.name,
            type=site.kind,
            pos=numbers(site.centre),
            quat=numbers(site.quaternion),
            size=numbers(site.size),
            rgba=site.rgba,
        )
    for index, shape in enumerate(body.shapes):
        add_shape(element, asset, shape, f"{body.name}_{index}", solid)
    for child in body.children:
        add_body(element, asset, child, solid)


def add_shape(parent: ET.Element, asset: ET.Element, shape: Shape, label: str, solid: dict[str, str]) -> None:
    """Append the geoms of `shape` to `parent`; a surface's triangles go to `asset` under `label`.

    Args:
        solid: attributes of the geoms that take part in contacts.
    """
    if isinstance(shape, Box):
        place = {"type": "box", "pos": numbers(shape.centre), "size": numbers(shape.half)}
        if shape.turn or shape.lean:
            place["quat"] = numbers(quaternion(shape))
        if shape.solid:
            ET.SubElement(parent, "geom", place, group="0", **solid)
        if shape.colour or shape.material:
            _look(ET.SubElement(parent, "geom", place), shape.colour, shape.material)
    elif isinstance(shape, Prism):
        _add_mesh(asset, label, *prism_mesh(shape), spread=bool(shape.material))
        _look(ET.SubElement(parent, "geom", type="mesh", mesh=label), shape.colour, shape.material)
    else:
        _add_mesh(asset, label, *(lathe_mesh(shape) if isinstance(shape, Lathe) else tube_mesh(shape)))
        _look(ET.SubElement(parent, "geom", type="mesh", mesh=label), shape.colour)


def _look(geom: ET.Element, colour: str, material: str = "") -> None:
    geom.attrib.update(group="1", contype="0", conaffinity="0")
    if material:
        geom.set("material", material)
    else:
        geom.set("rgba", numbers((*COLOURS[colour], 1.0)))


def _add_mesh(asset: ET.Element, name: str, vertices: np.ndarray, faces: np.ndarray, spread: bool = False) -> None:
    """Append a mesh; `spread` lays a picture over its extent in x and y."""
    mesh = ET.SubElement(asset, "mesh", name=name, vertex=numbers(vertices.reshape(-1)))
    mesh.set("face", " ".join(str(index) for index in faces.reshape(-1)))
    if spread:
        low = vertices.min(axis=0)
        mesh.set("texcoord", numbers(((vertices - low) / (vertices.max(axis=0) - low))[:, :2].reshape(-1)))
