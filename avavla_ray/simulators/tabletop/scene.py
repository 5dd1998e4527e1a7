"""The table, its blocks and zones and the gripper on rails above it, as MuJoCo reads them, and where blocks start.

Metres; x runs to the right of the scene camera's picture, y away from the camera, z up, the table top is z = 0.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from avavla_ray.simulators.tabletop.tasks import COLOURS, ZONES

BLOCK_HALF = 0.02
BLOCK_RGBA = {"red": "0.85 0.08 0.06 1", "green": "0.08 0.62 0.12 1", "blue": "0.08 0.18 0.88 1"}
ZONE_RGBA = {"left": "0.95 0.8 0.1 1", "right": "0.75 0.3 0.75 1"}
# Centre and half size of the zones: strips across the table, so that a block can be pushed straight into one.
ZONE_X = {"left": -0.175, "right": 0.175}
ZONE_HALF = (0.05, 0.15)
LAMP_RGBA = {"red": (1.0, 0.1, 0.05), "green": (0.1, 0.95, 0.15), "blue": (0.1, 0.2, 1.0), "dark": (0.12, 0.12, 0.12)}
SCENE_CAMERA, WRIST_CAMERA = "scene", "wrist"

# Rails and their range, the fingers' last; the gripper's position is that of the point between the fingertips.
RAILS = ("x", "y", "z", "yaw")
FINGERS = ("finger_left", "finger_right")
LOW, HIGH = np.array([-0.27, -0.17, 0.012, -0.8]), np.array([0.27, 0.17, 0.24, 0.8])
HOME = np.array([0.0, 0.0, 0.16, 0.0])
FINGER_OPEN = 0.035

# Physics: an environment step is one of the gripper's commands.
TIMESTEP, SUBSTEPS = 0.004, 10

# Where blocks start. Their y differ so much that one can be grasped and pushed along x without touching the others.
START_X, START_Y, START_GAP, START_YAW = 0.08, 0.11, 0.07, 0.3


def start_poses(random: np.random.Generator) -> np.ndarray:
    """(blocks, 3) x, y and yaw of the blocks in the order of COLOURS, whatever the task."""
    count = len(COLOURS)
    free = 2 * START_Y - (count - 1) * START_GAP
    y = np.sort(random.uniform(0, free, count)) + START_GAP * np.arange(count) - START_Y
    x = random.uniform(-START_X, START_X, count)
    yaw = random.uniform(-START_YAW, START_YAW, count)
    return np.stack([x, random.permutation(y), yaw], axis=1)


def start_gripper(random: np.random.Generator) -> np.ndarray:
    """(4,) x, y, z and yaw of the gripper: about home, so that its place tells nothing of the task."""
    return HOME + random.uniform(-1, 1, 4) * np.array([0.03, 0.03, 0.02, 0.0])


def _block(colour: str) -> str:
    return f"""
    <body name="{colour}" pos="0 0 {BLOCK_HALF}">
      <freejoint name="{colour}"/>
      <geom name="{colour}" class="block" rgba="{BLOCK_RGBA[colour]}"/>
    </body>"""


def _zone(zone: str) -> str:
    half_x, half_y = ZONE_HALF
    return f"""
    <geom name="{zone}" type="plane" class="picture" size="{half_x} {half_y} 1" pos="{ZONE_X[zone]} 0 0.0005"
          rgba="{ZONE_RGBA[zone]}"/>"""


def _finger(name: str, side: int) -> str:
    return f"""
            <body name="{name}" pos="{side * 0.006} 0 0" gravcomp="1">
              <joint name="{name}" type="slide" axis="{side} 0 0" range="0 {FINGER_OPEN}" damping="1"/>
              <geom name="{name}" class="finger" pos="0 0 0.016"/>
            </body>"""


def _rail_actuator(name: str, stiffness: float, low: float, high: float) -> str:
    return f"""
    <position name="{name}" joint="{name}" kp="{stiffness}" dampratio="1" ctrlrange="{low} {high}"/>"""


def scene_xml() -> str:
    """The scene in MuJoCo's format.

    Of the gripper only the fingers touch anything. Shadows would cost more than the rest of a picture: a dark spot
    below the gripper shows its place on the table. MuJoCo's default of 16 quads for each side of a box and 900
    triangles for a cylinder would double the cost and look the same.
    """
    stiffness = (2500.0, 2500.0, 2500.0, 1.0)
    rails = "".join(map(_rail_actuator, RAILS, stiffness, LOW, HIGH))
    return f"""
<mujoco model="tabletop">
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="5" iterations="20"/>
  <visual>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="4" numquads="1" numslices="16" numstacks="4"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  <asset>
    <material name="matt" specular="0" shininess="0"/>
    <material name="lamp" specular="0" shininess="0" emission="0.9"/>
  </asset>
  <default>
    <geom material="matt"/>
    <default class="picture"><geom contype="0" conaffinity="0" group="1" mass="0"/></default>
    <default class="block">
      <geom type="box" size="{BLOCK_HALF} {BLOCK_HALF} {BLOCK_HALF}" mass="0.05" friction="0.9 0.01 0.001"
            condim="4" solref="0.01 1"/>
    </default>
    <default class="finger">
      <geom type="box" size="0.006 0.01 0.028" mass="0.04" friction="1.2 0.02 0.001" condim="4" solref="0.01 1"
            rgba="0.9 0.9 0.9 1"/>
    </default>
  </default>
  <worldbody>
    <light directional="true" pos="0 -0.3 1.5" dir="0.25 0.35 -1" diffuse="0.5 0.5 0.5" specular="0 0 0"
           castshadow="false"/>
    <geom name="table" type="plane" size="0.8 0.8 0.1" rgba="0.5 0.52 0.55 1" friction="0.6 0.005 0.0001" condim="4"/>
    {"".join(map(_zone, ZONES))}
    <geom name="lamp" type="cylinder" class="picture" material="lamp" size="0.035 0.015" pos="0 -0.21 0.015"/>
    <camera name="{SCENE_CAMERA}" pos="0 -0.5 0.55" xyaxes="1 0 0 0 0.72 0.69" fovy="45"/>
    {"".join(map(_block, COLOURS))}
    <body name="carriage_x" gravcomp="1">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom class="picture" type="sphere" size="0.001" mass="0.2" rgba="0 0 0 0"/>
      <body name="carriage_y" gravcomp="1">
        <joint name="y" type="slide" axis="0 1 0"/>
        <geom class="picture" type="cylinder" size="0.012 0.0002" pos="0 0 0.0008" mass="0.2" rgba="0.1 0.1 0.1 1"/>
        <body name="carriage_z" gravcomp="1">
          <joint name="z" type="slide" axis="0 0 1"/>
          <geom class="picture" type="cylinder" size="0.009 0.15" pos="0 0 0.22" mass="0.2" rgba="0.3 0.3 0.32 1"/>
          <body name="hand" gravcomp="1">
            <joint name="yaw" type="hinge" axis="0 0 1"/>
            <geom name="hand" class="picture" type="box" size="0.045 0.016 0.014" pos="0 0 0.058" mass="0.3"
                  rgba="0.25 0.25 0.28 1"/>
            <camera name="{WRIST_CAMERA}" pos="0 -0.06 0.07" xyaxes="1 0 0 0 0.956 0.292" fovy="80"/>
            {_finger(FINGERS[0], -1)}
            {_finger(FINGERS[1], 1)}
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <contact>
    <exclude body1="{FINGERS[0]}" body2="{FINGERS[1]}"/>
  </contact>
  <actuator>
    {rails}
    <position name="{FINGERS[0]}" joint="{FINGERS[0]}" kp="300" dampratio="1" ctrlrange="-0.01 {FINGER_OPEN}"/>
    <position name="{FINGERS[1]}" joint="{FINGERS[1]}" kp="300" dampratio="1" ctrlrange="-0.01 {FINGER_OPEN}"/>
  </actuator>
</mujoco>
"""


@functools.cache
def scene_digest() -> str:
    """SHA-256 of the scene: results with the same digest were made on the same table."""
    return hashlib.sha256(scene_xml().encode()).hexdigest()
