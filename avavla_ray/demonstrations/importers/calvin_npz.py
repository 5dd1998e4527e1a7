"""CALVIN's data set: one episode_XXXXXXX.npz a step, and the spans of steps that somebody described in words."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.demonstrations.importers.restricted_pickle import DAMAGE, load_npy
from avavla_ray.demonstrations.importers.source import UNKNOWN_SEED, Member, Skipped, check_actions, check_array
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo, encode_image
from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.observation import CAMERAS, proprioception, resized
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.registry import CALVIN_SUITES, entry_of

ANNOTATIONS = Path("lang_annotations/auto_lang_ann.npy")
SPLIT = "training"
SUITES = (*CALVIN_SUITES, "calvin_abc", "calvin_abcd")
LONGEST = 10_000  # steps of a span; CALVIN's have up to 64


class CalvinNpz:
    """A downloaded data set (its `training`) or one of its splits; each described span is an episode.

    Pictures are resized as `CalvinSimulator` resizes its own, and actions keep CALVIN's sign of the gripper (+1 opens),
    which is that of our simulator.

    Args:
        suite: which scenes it is of: calvin_a to calvin_d, calvin_abc or calvin_abcd; its files don't say.
        image_size: height and width of both cameras' pictures, pixels.

    Raises:
        InputError: no such suite, no annotations, or they are damaged.
    """

    def __init__(self, path: Path, *, suite: str | None = None, image_size: int = 128) -> None:
        if suite not in SUITES:
            given = "none" if suite is None else f"{suite!r}"
            raise InputError(f"a CALVIN data set needs --suite, one of {', '.join(SUITES)}; got {given}")
        if image_size < 16:
            raise InputError(f"image size {image_size} is too small: give at least 16 pixels")
        self.suite, self._size = suite, image_size
        self._root = path / SPLIT if (path / SPLIT).is_dir() else path
        if not (self._root / ANNOTATIONS).is_file():
            raise InputError(f"{self._root} has no {ANNOTATIONS}: give a downloaded CALVIN data set")
        self._spans = _spans(self._root / ANNOTATIONS)

    def members(self) -> list[Member]:
        """See `Source.members`: the described spans in their order."""
        return [
            Member(
                f"{self.suite}-{index:06d}",
                f"{_file(start)} to {_file(end)} ({task})",
                {"index": index, "start": start, "end": end, "task": task, "instruction": instruction},
            )
            for index, (start, end, task, instruction) in enumerate(self._spans)
        ]

    def read(self, member: Member) -> Iterator[Episode | Skipped]:
        """See `Source.read`."""
        index, start, end, task, instruction = (
            member.detail[key] for key in ("index", "start", "end", "task", "instruction")
        )
        if task not in TASKS:
            yield Skipped(member.name, f"unknown task: CALVIN has no {task}")
            return
        if not 0 <= end - start < LONGEST:
            raise InputError(f"wrong shape: a span from {start} to {end}, expected 1 to {LONGEST} steps")
        images, proprio, actions = [], [], []
        for number in range(start, end + 1):
            step = self._step(number)
            images.append([encode_image(resized(step[f"rgb_{camera}"], self._size)) for camera in CAMERAS])
            proprio.append(proprioception(step["robot_obs"]))
            actions.append(step["rel_actions"])
        check_actions(np.array(actions))
        info = EpisodeInfo(
            member.name, self.suite, TASKS.index(task), index, UNKNOWN_SEED, len(actions), 0, instruction
        )
        yield Episode(info, images, np.array(proprio, np.float32), np.array(actions, np.float32))

    def _step(self, number: int) -> dict[str, np.ndarray]:
        name = _file(number)
        shapes: dict[str, tuple[tuple[int | None, ...], str]] = {
            "rel_actions": ((7,), "float"), "robot_obs": ((15,), "float"), "scene_obs": ((24,), "float"),
            **{f"rgb_{camera}": ((None, None, 3), "uint8") for camera in CAMERAS},
        }  # fmt: skip
        found = {}
        try:
            with zipfile.ZipFile(self._root / name) as file:
                for key in shapes:
                    with file.open(f"{key}.npy") as stream:
                        found[key] = np.lib.format.read_array(stream, allow_pickle=False)
                        stream.read()  # numpy reads no further than its array; the checksum comes after the end
        except FileNotFoundError:
            raise InputError(f"missing: {name}") from None
        except KeyError as error:
            raise InputError(f"missing: {key} of {name}") from error
        except (*DAMAGE, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"not readable: {name}: {error}") from error
        for key, (shape, kind) in shapes.items():
            check_array(f"{key} of {name}", found[key], shape, kind)
        return found

    def manifest(self) -> dict[str, Any]:
        """See `Source.manifest`."""
        return {
            "format": "CALVIN npz", "image_size": self._size, "cameras": list(CAMERAS),
            "fps": entry_of(CALVIN_SUITES[0]).control_hz,
            "units": {
                "proprio": "position 3 (m), Euler angles 3 (rad), finger opening (m), gripper command",
                "action": "position x 0.02 m, Euler angles x 0.05 rad, 6 in [-1, 1]; gripper +1 open, -1 close",
            },
            "pictures": "as recorded, resized bilinearly with antialiasing",
        }  # fmt: skip


def _file(number: int) -> str:
    return f"episode_{number:07d}.npz"


def _spans(path: Path) -> list[tuple[int, int, str, str]]:
    """First step, last step, task and instruction of every described span."""
    content = load_npy(path)
    try:
        described = content.item()
        texts, tasks, limits = (
            described["language"]["ann"], described["language"]["task"], described["info"]["indx"],
        )  # fmt: skip
        spans = [
            (int(start), int(end), str(task), str(text))
            for (start, end), task, text in zip(limits, tasks, texts, strict=True)
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} holds no annotations of CALVIN's ({error!r})") from error
    if not spans:
        raise InputError(f"{path} describes no span")
    return spans
