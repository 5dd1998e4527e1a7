"""One demonstration of a LIBERO HDF5 file, checked and turned the way our simulators show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from avavla_ray.demonstrations.importers.source import check_actions, check_array, check_form
from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.adapter import axis_angle

PICTURES = ("obs/agentview_rgb", "obs/eye_in_hand_rgb")
JOINTS = 7
LARGEST = 2 * 2**30  # bytes of one array; pictures of LIBERO's longest demonstrations at 1024 px have 1.6 GB


@dataclass(frozen=True)
class Seen:
    """What was observed.

    Attributes:
        proprio: (T, 8) float32, as `LiberoSimulator` gives it. pictures: (T, 2, H, W, 3) uint8, as it shows them.
        late: 1 where proprio[j] and pictures[j] were taken after actions[j], 0 where before.
    """

    proprio: np.ndarray
    pictures: np.ndarray
    late: int


@dataclass(frozen=True)
class Demo:
    """T steps.

    Attributes:
        actions: (T, 7) float32. states: (T, 1 + nq + nv) float64, before each action.
        model_file: the scene as MuJoCo saved it, None where there is none.
        done: whether it says that it ends in success; True where it says nothing.
        seen: None when not asked for.
    """

    actions: np.ndarray
    states: np.ndarray
    model_file: str | None
    done: bool
    seen: Seen | None


def read_demo(group: Any, convention: str, *, seen: bool) -> Demo:
    """Read `data/demo_i`.

    Args:
        convention: robosuite's image convention when it was recorded, "opengl" (rows bottom up) or "opencv".
        seen: read observations too.

    Raises:
        InputError: "sort: particulars". Many others, of h5py's: damaged bytes.
    """
    actions = _read(group, "actions", (None, 7), "float")
    steps = len(actions)
    if steps < 2:
        raise InputError(f"wrong shape: {steps} steps, expected at least 2")
    told = group.attrs.get("num_samples", steps)
    if told != steps:
        raise InputError(f"wrong shape: actions holds {steps} steps, num_samples says {told}")
    check_actions(actions)
    states = _read(group, "states", (steps, None), "float").astype(np.float64)
    if states.shape[1] <= JOINTS:
        raise InputError(f"wrong shape: states is {states.shape}, expected (T, 1 + nq + nv)")
    model = group.attrs.get("model_file")
    done = "dones" not in group or bool(np.asarray(stored(group, "dones"))[-1])
    return Demo(
        actions.astype(np.float32), states, None if model is None else text_of(model), done,
        _seen(group, states, convention) if seen else None,
    )  # fmt: skip


def text_of(value: str | bytes) -> str:
    """An attribute's text, which HDF5 stores in two ways."""
    return value.decode() if isinstance(value, bytes) else value


def _seen(group: Any, states: np.ndarray, convention: str) -> Seen:
    steps = len(states)
    robot = _read(group, "robot_states", (steps, 9), "float")
    joints = _read(group, "obs/joint_states", (steps, JOINTS), "float")
    scene, wrist = (_upright(_pictures(group, name, steps), convention) for name in PICTURES)
    if scene.shape != wrist.shape:
        raise InputError(f"wrong shape: {PICTURES[1]} is {wrist.shape}, {PICTURES[0]} {scene.shape}")
    return Seen(_proprio(robot), np.stack([scene, wrist], axis=1), _seen_late(states, joints))


def _read(group: Any, name: str, shape: tuple[int | None, ...], kind: str) -> np.ndarray:
    found = stored(group, name)
    check_form(name, found, shape, kind)
    array = np.asarray(found)
    check_array(name, array, shape, kind)
    return array


def inside(group: Any, name: str) -> Any:
    """What lies at `name` in this very file.

    Raises:
        InputError: it is absent, or a link to elsewhere.
    """
    import h5py

    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise InputError(f"missing: {name}")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"not readable: {name} is a link ({type(link).__name__})")
        group = group[part]
    return group


def stored(group: Any, name: str) -> Any:
    """The data set at `name`, to be read.

    Raises:
        InputError: it is absent, in another file, too large, or parts of it were never written (HDF5 reads zeros).
    """
    found = inside(group, name)
    if not hasattr(found, "dtype"):
        raise InputError(f"not readable: {name} is no array")
    if found.external or found.is_virtual:
        raise InputError(f"not readable: {name} lies in another file")
    if found.nbytes > LARGEST:
        raise InputError(f"wrong shape: {name} is {found.shape}, more than {LARGEST / 1e9:.1f} GB")
    if found.chunks is None:
        whole = found.id.get_storage_size() >= found.nbytes
    else:
        lengths = zip(found.shape, found.chunks, strict=True)
        whole = found.id.get_num_chunks() == math.prod(-(-length // chunk) for length, chunk in lengths)
    if not whole:
        raise InputError(f"missing: parts of {name} were never written")
    return found


def _pictures(group: Any, name: str, steps: int) -> np.ndarray:
    array = _read(group, name, (steps, None, None, 3), "uint8")
    if array.shape[1] != array.shape[2] or array.shape[1] < 1:
        raise InputError(f"wrong shape: {name} is {array.shape}, expected square pictures")
    return array


def _upright(pictures: np.ndarray, convention: str) -> np.ndarray:
    """(T, H, W, 3) as `LiberoSimulator` shows them: the true view's mirror image, which OpenVLA's half turn of raw
    pictures made the custom."""
    if convention == "opengl":
        return pictures[:, ::-1, ::-1]
    if convention == "opencv":
        return pictures[:, :, ::-1]
    raise InputError(f"unknown convention: macros_image_convention is {convention!r}, expected opengl or opencv")


def _proprio(robot: np.ndarray) -> np.ndarray:
    """(T, 8) of robot_states: finger joints 2, hand position 3, hand quaternion 4 (x, y, z, w)."""
    lengths = np.linalg.norm(robot[:, 5:], axis=1)
    if np.abs(lengths - 1).max() > 1e-2:
        step = int(np.abs(lengths - 1).argmax())
        raise InputError(f"out of range: the hand's quaternion of step {step} has length {lengths[step]:.3g}, not 1")
    rotations = np.array([axis_angle(quaternion) for quaternion in robot[:, 5:]])
    return np.concatenate([robot[:, 2:5], rotations, robot[:, :2]], axis=1).astype(np.float32)


def _seen_late(states: np.ndarray, joints: np.ndarray) -> int:
    """Whether the observed arm joints are those of the next state (1) or of the same (0).

    LIBERO's states begin with the time and the arm's joints. A constant offset of the joints tells nothing and is taken
    out before the two are compared.
    """
    arm = states[:, 1 : 1 + JOINTS]
    after, before = joints[:-1] - arm[1:], joints[:-1] - arm[:-1]
    late, early = (np.abs(misfit - misfit.mean(axis=0)).mean() for misfit in (after, before))
    if np.abs(after if late < early else before).mean() > 0.1 or 3 * min(late, early) >= max(late, early):
        raise InputError(
            f"not consistent: obs/joint_states is {np.abs(after).mean():.2g} rad off the states after actions, "
            f"{np.abs(before).mean():.2g} off those before: near neither, or as near to both"
        )
    return int(late < early)
