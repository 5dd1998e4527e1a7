"""Small data sets in the layouts that LIBERO and CALVIN publish."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from avavla_ray.simulators.libero.suites import task_at

ARM = 7
QUATERNION_DOWN = np.array([0.9990, 0.0300, 0.0200, 0.0245])


@dataclass
class LiberoDemo:
    """One episode as LIBERO's script writes it; T steps.

    Attributes:
        actions: (T, 7). states: (T, S), before each action.
        scene, wrist: (T, H, W, 3) uint8, rows bottom up. robot: (T, 9). joints: (T, 7). All after each action.
        model_file: of the scene, as MuJoCo saves it.
    """

    actions: np.ndarray
    states: np.ndarray
    scene: np.ndarray
    wrist: np.ndarray
    robot: np.ndarray
    joints: np.ndarray
    model_file: str | None = None


def libero_demo(steps: int = 12, *, size: int = 32, seed: int = 0, state_size: int = 40) -> LiberoDemo:
    """A demonstration that follows from its seed; its arm moves, and its pictures show which step it is."""
    random = np.random.default_rng(seed)
    actions = random.uniform(-0.9, 0.9, (steps, 7))
    actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1, 1)
    path = np.cumsum(random.uniform(0.01, 0.05, (steps + 1, ARM)), axis=0)  # arm joints before and after each action
    states = random.normal(size=(steps, state_size))
    states[:, 0] = np.arange(steps) / 20
    states[:, 1 : 1 + ARM] = path[:-1]
    quaternions = QUATERNION_DOWN + random.normal(0, 0.02, (steps, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    robot = np.concatenate([random.uniform(0, 0.04, (steps, 2)), random.normal(size=(steps, 3)), quaternions], axis=1)
    scene, wrist = random.integers(0, 255, (2, steps, size, size, 3), dtype=np.uint8)
    return LiberoDemo(actions, states, scene, wrist, robot, path[1:])


def write_libero(folder: Path, task: int, demos: Sequence[LiberoDemo], suite: str = "libero_object") -> Path:
    """FOLDER/SUITE/TASK_demo.hdf5."""
    described = task_at(suite, task)
    path = folder / suite / f"{described.name}_demo.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["bddl_file_name"] = described.bddl.name
        data.attrs["bddl_file_content"] = described.bddl.read_text(encoding="utf-8")
        data.attrs["problem_info"] = json.dumps({"language_instruction": described.instruction})
        data.attrs["num_demos"] = len(demos)
        data.attrs["total"] = sum(len(demo.actions) for demo in demos)
        for index, demo in enumerate(demos):
            _write_demo(data.create_group(f"demo_{index}"), demo)
    return path


def _write_demo(group: h5py.Group, demo: LiberoDemo) -> None:
    steps = len(demo.actions)
    done = np.zeros(steps, np.uint8)
    done[-1] = 1
    columns = {
        "actions": demo.actions, "states": demo.states, "robot_states": demo.robot, "rewards": done, "dones": done,
        "obs/agentview_rgb": demo.scene, "obs/eye_in_hand_rgb": demo.wrist, "obs/joint_states": demo.joints,
        "obs/gripper_states": demo.robot[:, :2], "obs/ee_pos": demo.robot[:, 2:5],
    }  # fmt: skip
    for name, values in columns.items():
        group.create_dataset(name, data=values)
    group.attrs["num_samples"] = steps
    group.attrs["init_state"] = demo.states[0]
    if demo.model_file is not None:
        group.attrs["model_file"] = demo.model_file


def write_calvin(folder: Path, spans: Sequence[tuple[str, str, int]], *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """FOLDER/training in CALVIN's layout.

    Args:
        spans: task, sentence and number of steps; they share no step.

    Returns:
        every step as it was written.
    """
    random = np.random.default_rng(seed)
    split = folder / "training"
    (split / "lang_annotations").mkdir(parents=True)
    steps, limits = [], []
    for _, _, length in spans:
        limits.append((len(steps), len(steps) + length - 1))
        steps += [_calvin_step(random) for _ in range(length)]
    for number, step in enumerate(steps):
        np.savez(split / f"episode_{number:07d}.npz", **step)
    annotations = {
        "language": {
            "ann": [sentence for _, sentence, _ in spans],
            "task": [task for task, _, _ in spans],
            "emb": random.normal(size=(len(spans), 1, 8)).astype(np.float32),
        },
        "info": {"episodes": [], "indx": limits},
    }
    np.save(split / "lang_annotations" / "auto_lang_ann.npy", np.array(annotations, object))
    return steps


def _calvin_step(random: np.random.Generator) -> dict[str, np.ndarray]:
    relative = random.uniform(-1, 1, 7)
    relative[6] = random.choice([-1.0, 1.0])
    robot = random.normal(size=15)
    robot[14] = relative[6]
    return {
        "actions": random.normal(size=7), "rel_actions": relative, "robot_obs": robot,
        "scene_obs": random.normal(size=24),
        "rgb_static": random.integers(0, 255, (200, 200, 3), dtype=np.uint8),
        "rgb_gripper": random.integers(0, 255, (84, 84, 3), dtype=np.uint8),
    }  # fmt: skip
