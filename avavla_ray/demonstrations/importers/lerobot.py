"""LeRobot data sets of format v3.0: numbers in Parquet, pictures in MP4 or Parquet, many episodes a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from avavla_ray.demonstrations import lerobot_layout as layout
from avavla_ray.demonstrations.importers.lerobot_conventions import (
    GRIPPERS,
    SIGNED,
    TURNS,
    UNKNOWN_TASK,
    task_numbers,
    with_our_gripper,
    with_our_rotation,
)
from avavla_ray.demonstrations.importers.lerobot_index import (
    file_path,
    read_episodes,
    read_info,
    read_tasks,
    row_trouble,
)
from avavla_ray.demonstrations.importers.lerobot_rows import last_numbers, read_rows, still, vectors
from avavla_ray.demonstrations.importers.source import UNKNOWN_SEED, Member, Skipped
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo, encode_image
from avavla_ray.demonstrations.video import decode_frames
from avavla_ray.errors import InputError, check_known

ON_THE_HAND = re.compile("wrist|hand|gripper", re.IGNORECASE)


class LeRobot:
    """A folder that holds meta/, data/ and videos/.

    Args:
        suite: name of the data set; the folder's when left out.
        cameras: features, the scene's first and the wrist's second; all when left out, those whose names speak of a
            wrist, hand or gripper last.
        state, action: features that become proprio and action.
        gripper: what the last number of an action is: "signed" (as our simulator of the suite takes it: -1 open,
            +1 close; the reverse for CALVIN), "open_fraction" (1 open, 0 closed) or "closed_fraction" (0 open,
            1 closed).
        turn: how the pictures lie to those of our simulators, and are turned back.
        image_size: scale pictures to so many pixels, high and wide; needed where they are not square and all alike.

    Raises:
        InputError: not such a folder or not of this format, or an option that does not fit it.
    """

    def __init__(
        self,
        path: Path,
        *,
        suite: str | None = None,
        cameras: tuple[str, ...] = (),
        state: str = layout.STATE,
        action: str = layout.ACTION,
        gripper: Literal["signed", "open_fraction", "closed_fraction"] = "signed",
        turn: Literal["upright", "half_turn", "upside_down", "mirrored"] = "upright",
        image_size: int | None = None,
    ) -> None:
        check_known("gripper", gripper, GRIPPERS)
        check_known("turn", turn, TURNS)
        self._folder, self._info = path, read_info(path)
        self.suite = suite or path.resolve().name
        if not re.fullmatch(r"[\w.-]+", self.suite):
            raise InputError(f"{self.suite!r} cannot name files: give --suite, letters and digits")
        self._features = self._info["features"]
        for feature in (state, action):
            check_known("feature", feature, self._features)
        self._state, self._action, self._gripper, self._turn = state, action, gripper, turn
        self._widths = {feature: self._width(feature) for feature in (state, action)}
        self._cameras = self._chosen(cameras)
        self._scale = image_size is not None
        self._size = image_size if image_size is not None else self._common_size()
        if self._size < 1:
            raise InputError(f"--image-size {image_size}: give at least 1")
        self._tasks, self._numbers = read_tasks(path), task_numbers(self.suite)

    def _chosen(self, cameras: tuple[str, ...]) -> list[str]:
        known = [name for name, feature in self._features.items() if layout.is_picture(feature)]
        for camera in cameras:
            check_known("camera", camera, known)
        if not known:
            raise InputError(f"{self._folder} has no pictures: its features are {', '.join(self._features)}")
        return list(cameras) or sorted(known, key=lambda name: ON_THE_HAND.search(name) is not None)

    def _common_size(self) -> int:
        try:
            sizes = {camera: layout.picture_size(self._features[camera]) for camera in self._cameras}
        except ValueError as error:
            raise InputError(f"{layout.INFO}: a camera's shape is not understood: {error}") from error
        height, width = next(iter(sizes.values()))
        if height != width or len(set(sizes.values())) > 1:
            found = ", ".join(f"{camera} {size[0]} x {size[1]}" for camera, size in sizes.items())
            raise InputError(f"pictures are not square and all alike ({found}): give --image-size")
        return height

    def _width(self, feature: str) -> int:
        try:
            return layout.vector_width(self._features[feature])
        except ValueError as error:
            raise InputError(f"{layout.INFO}: {feature}: {error}") from error

    def _check_gripper(self, files: Iterable[str]) -> None:
        """Refuse commands from 0 on where ours begin at -1; reads until the first below 0."""
        least, largest = np.inf, -np.inf
        paths = (self._folder / path for path in files)
        for commands in last_numbers(paths, self._action, self._widths[self._action]):
            least, largest = min(least, commands.min()), max(largest, commands.max())
            if least < 0:
                return
        if least < largest:
            raise InputError(
                f"the last number of {self._action} goes from {least:g} to {largest:g}, expected -1 to +1: give "
                "--gripper open_fraction if 1 is open and 0 closed, closed_fraction if 0 is open and 1 closed"
            )

    def members(self) -> list[Member]:
        """See `Source.members`: one an episode."""
        videos = [camera for camera in self._cameras if self._features[camera]["dtype"] == "video"]
        stamps: dict[str, list[int] | None] = {}
        tried: Counter[tuple[str, ...]] = Counter()
        numbers: dict[str, list[int]] = {}
        for index, text in self._tasks.items():
            numbers.setdefault(text, []).append(index)
        members = []
        for row in read_episodes(self._folder, self._info, videos):
            number = row["episode_index"]
            name, trouble = f"{self.suite}-{number:06d}", row_trouble(row, videos)
            if trouble is not None:
                members.append(Member(name, f"{layout.EPISODES}: episode {number}", {"trouble": trouble}))
                continue
            data = file_path(self._info["data_path"], row)
            films = {camera: file_path(self._info.get("video_path"), row, camera) for camera in videos}
            for path in (data, *films.values()):
                if path not in stamps:
                    stamps[path] = _stamp(self._folder / path)
            tasks = tuple(row["tasks"])
            detail = {
                "episode": number,
                "steps": row["length"],
                "attempt": tried[tasks],
                "tasks": list(tasks),
                # Other members stay as they are when one instruction is mended.
                "numbers": sorted(index for text in tasks for index in numbers.get(text, ())),
                "data": data,
                "videos": {
                    camera: {
                        "file": path,
                        "start": row[layout.video_column(camera, "from_timestamp")],
                        "end": row[layout.video_column(camera, "to_timestamp")],
                    }
                    for camera, path in films.items()
                },
                "files": {path: stamps[path] for path in (data, *films.values())},
            }
            tried[tasks] += 1
            members.append(Member(name, f"{data}: episode {number}", detail))
        if self._gripper == SIGNED:
            self._check_gripper(dict.fromkeys(member.detail["data"] for member in members if "data" in member.detail))
        return members

    def read(self, member: Member) -> Iterator[Episode | Skipped]:
        """See `Source.read`."""
        detail = member.detail
        if "trouble" in detail:
            raise InputError(detail["trouble"])
        stills = [camera for camera in self._cameras if camera not in detail["videos"]]
        columns = [self._state, self._action, "timestamp", "frame_index", "task_index", *stills]
        rows = read_rows(self._folder / detail["data"], detail["episode"], columns)
        steps = detail["steps"]
        if rows.num_rows != steps or steps < 1:
            raise InputError(f"wrong number of frames: {detail['data']} holds {rows.num_rows}, expected {steps}")
        if rows["frame_index"].to_pylist() != list(range(steps)):
            raise InputError(f"not consistent: frame_index does not count from 0 to {steps - 1}")
        tasks = rows["task_index"].unique().to_pylist()
        if len(tasks) > 1:
            yield Skipped(member.name, f"several instructions: its frames belong to {len(tasks)} tasks")
            return
        instruction = self._tasks.get(tasks[0])
        if not instruction:
            yield Skipped(member.name, f"no instruction: {layout.TASKS} has none of number {tasks[0]}")
            return
        if instruction not in detail["tasks"]:
            raise InputError(
                f"not consistent: its frames are of {instruction!r}, the table of episodes says {detail['tasks']}"
            )
        state, action = (vectors(rows, feature, self._widths[feature]) for feature in (self._state, self._action))
        proprio = with_our_rotation(state, self.suite)
        actions = with_our_gripper(action, self._gripper, self.suite)
        times = vectors(rows, "timestamp")[:, 0].astype(np.float64)
        if (np.diff(times) <= 0).any():
            raise InputError(f"not consistent: timestamps of {detail['data']} do not ascend")
        pictures = [
            self._stills(rows, camera) if camera in stills else self._film(detail["videos"][camera], times)
            for camera in self._cameras
        ]
        task = tasks[0] if self._numbers is None else self._numbers.get(instruction, UNKNOWN_TASK)
        info = EpisodeInfo(
            member.name, self.suite, task, detail["attempt"], UNKNOWN_SEED, steps, 0, instruction
        )  # fmt: skip
        yield Episode(info, [list(shown) for shown in zip(*pictures, strict=True)], proprio, actions)

    def _film(self, video: dict[str, Any], times: np.ndarray) -> list[bytes]:
        """The frames shown at `times` (T,), seconds of the episode; only this part of the video is decoded."""
        # Far more than timestamps are rounded by, and no choice between two frames.
        tolerance = 0.25 / self._info["fps"]
        length = video["end"] - video["start"]
        if times[0] < -tolerance or times[-1] > length + tolerance:
            raise InputError(
                f"not consistent: timestamps from {times[0]:.3f} to {times[-1]:.3f} s, {video['file']} has 0 to "
                f"{length:.3f} s of this episode"
            )
        return decode_frames(self._folder / video["file"], video["start"] + times, tolerance, self._encoded)

    def _stills(self, rows: pa.Table, camera: str) -> list[bytes]:
        return [self._encoded(still(value, camera, step)) for step, value in enumerate(rows[camera].to_pylist())]

    def _encoded(self, pixels: np.ndarray) -> bytes:
        """(H, W, 3) uint8 as it is stored -> PNG as our simulators would show it."""
        turned = np.ascontiguousarray(TURNS[self._turn](pixels))
        if turned.shape[:2] != (self._size, self._size):
            if not self._scale:
                height, width = pixels.shape[:2]
                raise InputError(f"wrong shape: a picture of {height} x {width}, expected {self._size} x {self._size}")
            image = Image.fromarray(turned).resize((self._size, self._size), Image.Resampling.LANCZOS)
            turned = np.asarray(image)
        return encode_image(turned)

    def manifest(self) -> dict[str, Any]:
        """See `Source.manifest`."""
        return {
            "format": f"LeRobot {self._info['codebase_version']}",
            "image_size": self._size,
            "cameras": self._cameras,
            "fps": self._info["fps"],
            "robot": self._info.get("robot_type"),
            "units": {
                "proprio": {"feature": self._state, "names": self._features[self._state].get("names")},
                "action": {"feature": self._action, "names": self._features[self._action].get("names")},
            },
            "gripper": self._gripper,
            "turn": self._turn,
            "scaled": self._scale,
        }


def _stamp(path: Path) -> list[int] | None:
    """Bytes and time of change of a file; None where there is none."""
    if not path.is_file():
        return None
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
