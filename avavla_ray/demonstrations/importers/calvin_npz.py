"""CALVIN's data set: one episode_XXXXXXX.npz a step, and the spans of steps that somebody described in words."""

from __future__ import annotations

import io
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
from avavla_ray.simulators.calvin.observation import CAMERAS, PROPRIOCEPTION, proprioception, resized
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.registry import CALVIN_SUITES, entry_of

ANNOTATIONS = Path("lang_annotations/auto_lang_ann.npy")
SPLIT = "training"
SUITES = (*CALVIN_SUITES, "calvin_abc", "calvin_abcd")
PICTURES = tuple(f"rgb_{camera}" for camera in CAMERAS)
LONGEST = 10_000  # steps of a span; CALVIN's have up to 64
LARGEST = 64 * 2**20  # bytes of one array of a step, unpacked; CALVIN's pictures have 120 kB


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
        return [self._member(index, *span) for index, span in enumerate(self._spans)]

    def _member(self, index: int, start: int, end: int, task: str, instruction: str) -> Member:
        detail = {
            "index": index, "start": start, "end": end, "task": task, "instruction": instruction,
            "files": [self._stamp(start), self._stamp(end)],
        }  # fmt: skip
        return Member(f"{self.suite}-{index:06d}", f"{_file(start)} to {_file(end)} ({task})", detail)

    def _stamp(self, number: int) -> list[int] | None:
        """Bytes and time of change of a step's file; None where there is none."""
        path = self._root / _file(number)
        if not path.is_file():
            return None
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def read(self, member: Member) -> Iterator[Episode | Skipped]:
        """See `Source.read`."""
        index, start, end, task, instruction = (
            member.detail[key] for key in ("index", "start", "end", "task", "instruction")
        )
        if task not in TASKS:
            yield Skipped(member.name, f"unknown task: CALVIN has no {task}")
            return
        if not instruction.strip():
            yield Skipped(member.name, "no instruction: the span is described by nothing")
            return
        if not 0 <= end - start < LONGEST:
            raise InputError(f"wrong shape: a span from {start} to {end}, expected 1 to {LONGEST} steps")
        images, proprio, actions = [], [], []
        sizes: dict[str, tuple[int, ...]] = {}
        for number in range(start, end + 1):
            step = self._step(number)
            for key in PICTURES:
                if step[key].shape != sizes.setdefault(key, step[key].shape):
                    raise InputError(f"wrong shape: {key} of {_file(number)} is {step[key].shape}, before {sizes[key]}")
            images.append([encode_image(resized(step[key], self._size)) for key in PICTURES])
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
            **dict.fromkeys(PICTURES, ((None, None, 3), "uint8")),
        }  # fmt: skip
        found = {}
        try:
            with zipfile.ZipFile(self._root / name) as file:
                for key in shapes:
                    packed = file.getinfo(f"{key}.npy")
                    if packed.file_size > LARGEST:
                        raise InputError(f"wrong shape: {key} of {name} has {packed.file_size / 1e6:.0f} MB")
                    # All of it, since the checksum is compared at the end.
                    content = io.BytesIO(file.read(packed))
                    found[key] = np.lib.format.read_array(content, allow_pickle=False)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"missing: {name}") from None
        except KeyError as error:
            raise InputError(f"missing: {key} of {name}") from error
        except (*DAMAGE, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"not readable: {name}: {error}") from error
        for key, (shape, kind) in shapes.items():
            check_array(f"{key} of {name}", found[key], shape, kind)
            if not found[key].size:
                raise InputError(f"wrong shape: {key} of {name} is {found[key].shape}, expected some pixels")
        return found

    def manifest(self) -> dict[str, Any]:
        """See `Source.manifest`."""
        return {
            "format": "CALVIN npz", "image_size": self._size, "cameras": list(CAMERAS),
            "fps": entry_of(CALVIN_SUITES[0]).control_hz,
            "units": {
                "proprio": PROPRIOCEPTION,
                "action": "position x 0.02 m, Euler angles x 0.05 rad, 6 in [-1, 1]; gripper +1 open, -1 close",
            },
            "pictures": "as recorded, resized bilinearly with antialiasing",
        }  # fmt: skip


def _file(number: int) -> str:
    return f"episode_{number:07d}.npz"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where there should be text")
    return str(value)  # numpy has a text type of its own


def _spans(path: Path) -> list[tuple[int, int, str, str]]:
    """First step, last step, task and instruction of every described span."""
    content = load_npy(path)
    try:
        described = content.item()
        texts, tasks, limits = (
            described["language"]["ann"], described["language"]["task"], described["info"]["indx"],
        )  # fmt: skip
        spans = [
            (int(start), int(end), _text(task), _text(text))
            for (start, end), task, text in zip(limits, tasks, texts, strict=True)
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} holds no annotations of CALVIN's ({error!r})") from error
    if not spans:
        raise InputError(f"{path} describes no span")
    return spans
