"""LIBERO's published demonstrations: SUITE/TASK_demo.hdf5, one group `data/demo_i` an episode.

In the published files obs[j] and robot_states[j] were taken after actions[j], states[j] before it. In the files that
OpenVLA's script makes of them everything was taken before. Nothing in a file says which it is, but its states do.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.demonstrations.importers.libero_demo import PICTURES, Demo, Seen, inside, read_demo, text_of
from avavla_ray.demonstrations.importers.source import UNKNOWN_SEED, Member, Skipped
from avavla_ray.demonstrations.recording import kept_steps
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo, encode_image
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.libero.suites import MAX_STEPS, Task, tasks_of
from avavla_ray.simulators.registry import entry_of, identify

CAMERAS = ("agentview", "robot0_eye_in_hand")


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError("reading LIBERO's HDF5 files needs h5py: pip install '.[libero]'") from None
    return h5py


def open_hdf5(path: Path) -> Any:
    """The file, to be closed by the caller.

    Raises:
        InputError: "sort: particulars"; truncated, or no HDF5.
    """
    try:
        return _h5py().File(path, "r", locking="best-effort")
    except OSError as error:
        raise InputError(f"not readable: {path.name}: {error}") from error


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """h5py tells in many ways of bytes that make no sense, such as a number type that nobody has."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, MemoryError, OSError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"not readable: {path.name}: {error}") from error


def _suite_of(path: Path, suite: str | None) -> str:
    folder = path if path.is_dir() else path.parent
    name = suite or folder.resolve().name
    if name not in MAX_STEPS:
        hint = "give --suite" if suite is None else "give one of them"
        raise InputError(f"{name!r} is no LIBERO suite ({', '.join(MAX_STEPS)}): {hint}")
    return name


@dataclass(frozen=True)
class _Steps:
    """What becomes of a demo: one observation, in the simulator's orientation, for each step that is kept."""

    keep: np.ndarray
    images: list[list[bytes]]
    proprio: np.ndarray


class LiberoHdf5:
    """A folder of one suite's files, or one file.

    Without `regenerate` pictures are the recorded ones (128 px in the published files) and the first step, which has
    none before it, is dropped. Steps that do nothing are dropped (`recording.kept_steps`).

    Args:
        suite: of LIBERO; the folder's name when left out.
        regenerate: show the stored states in our simulator at so many pixels; leave out what does not succeed there.
        assets, render: of that simulator.
        keep_noops: drop no step that does nothing.

    Raises:
        InputError: no LIBERO suite, no HDF5 files, LIBERO or h5py not installed, wrong assets.
    """

    def __init__(
        self,
        path: Path,
        *,
        suite: str | None = None,
        regenerate: int | None = None,
        assets: str = "bundled",
        render: str = "fast",
        keep_noops: bool = False,
    ) -> None:
        _h5py()
        self.suite = _suite_of(path, suite)
        self._root = path if path.is_dir() else path.parent
        self._files = sorted(path.glob("*.hdf5")) if path.is_dir() else [path]
        if not self._files:
            raise InputError(f"{path} holds no *.hdf5: give the folder with a suite's TASK_demo.hdf5 files")
        self._tasks = {task.name: task for task in tasks_of(self.suite)}
        self._keep_noops = keep_noops
        self._config: SimulatorConfig | None = None
        self._simulated: dict[str, Any] = {}
        self._replay: Any = None
        if regenerate is not None:
            self._config = SimulatorConfig(suite=self.suite, assets=assets, render=render, image_size=regenerate)
            self._simulated = {"render": render, **identify(self._config)}
        self._size = regenerate or self._recorded_size()

    def _recorded_size(self) -> int:
        """Height of the pictures of most demonstrations."""
        heights: Counter[int] = Counter()
        for file in self._files:
            with contextlib.suppress(InputError), open_hdf5(file) as opened, _damage_named(file):
                data = inside(opened, "data")
                for demo in _demos(data)[0].values():
                    with contextlib.suppress(InputError):
                        shape: tuple[int, ...] = getattr(inside(data, f"{demo}/{PICTURES[0]}"), "shape", ())
                        heights.update(shape[1:2])
        if not heights:
            raise InputError(f"none of the {len(self._files)} files in {self._root} holds a readable demonstration")
        return int(heights.most_common(1)[0][0])

    def _task(self, file: Path) -> Task | None:
        return self._tasks.get(file.stem.removesuffix("_demo"))

    def _check_task(self, data: Any, task: Task) -> None:
        """Refuse a file that says it is of another task than its name; an older spelling is nobody's."""
        told = Path(text_of(data.attrs.get("bddl_file_name", ""))).stem
        problem = json.loads(text_of(data.attrs.get("problem_info", "{}")))
        words = str(problem.get("language_instruction", "")).lower()
        others = [other for other in self._tasks.values() if other != task]
        if told in {other.name for other in others}:
            raise InputError(f"not consistent: bddl_file_name is {told}, its file is named {task.name}")
        if words != task.instruction and words in {other.instruction for other in others}:
            raise InputError(f"not consistent: language_instruction is {words!r}, its file is named {task.name}")

    def members(self) -> list[Member]:
        """See `Source.members`: one a demo; a file that can't be opened or lacks some is one too, to be told of."""
        return [member for file in self._files for member in self._members_of(file)]

    def _members_of(self, file: Path) -> list[Member]:
        task = self._task(file)
        stem = f"{self.suite}-{file.stem}" if task is None else f"{self.suite}-{task.index:02d}"
        detail: dict[str, Any] = {"file": file.name}
        demos: dict[int, str] = {}
        try:
            with open_hdf5(file) as opened, _damage_named(file):
                demos, trouble = _demos(inside(opened, "data"))
            detail |= {"bytes": file.stat().st_size, "modified": file.stat().st_mtime_ns}
        except InputError as error:
            trouble = str(error)
        members = [
            Member(f"{stem}-{number:05d}", f"{file.name}:data/{demo}", {**detail, "demo": demo, "number": number})
            for number, demo in sorted(demos.items())
        ]
        if trouble is not None:
            members.append(Member(f"{stem}-absent", file.name, {**detail, "demo": None}))
        return members

    def read(self, member: Member) -> Iterator[Episode | Skipped]:
        """See `Source.read`."""
        file = self._root / member.detail["file"]
        task = self._task(file)
        with open_hdf5(file) as opened, _damage_named(file):
            data = inside(opened, "data")
            if task is None:
                yield Skipped(member.name, f"unknown task: {self.suite} has no {file.stem.removesuffix('_demo')}")
                return
            if member.detail["demo"] is None:
                raise InputError(_demos(data)[1] or "not readable: it was not when the import began")
            self._check_task(data, task)
            convention = data.attrs.get("macros_image_convention", "opengl")
            group = inside(data, member.detail["demo"])
            demo = read_demo(group, text_of(convention), seen=self._config is None)
        if demo.seen is not None and not demo.done:
            yield Skipped(member.name, "not successful: its last entry of dones is 0")
            return
        steps = self._regenerated(demo, task) if demo.seen is None else self._recorded(demo.actions, demo.seen)
        if steps is None:
            yield Skipped(member.name, "not successful: the goal does not hold where its states and last action lead")
            return
        actions = demo.actions[steps.keep]
        if not len(actions):
            raise InputError("nothing left: it holds only steps that do nothing")
        info = EpisodeInfo(
            member.name, self.suite, task.index, member.detail["number"], UNKNOWN_SEED, len(actions),
            int((~steps.keep).sum()), task.instruction,
        )  # fmt: skip
        yield Episode(info, steps.images, steps.proprio, actions)

    def _kept(self, actions: np.ndarray) -> np.ndarray:
        return np.ones(len(actions), bool) if self._keep_noops else kept_steps(actions)

    def _recorded(self, actions: np.ndarray, seen: Seen) -> _Steps:
        size = seen.pictures.shape[2]
        if size != self._size:
            raise InputError(f"wrong shape: its pictures have {size} pixels, those of most {self._size}")
        keep = np.concatenate([np.zeros(seen.late, bool), self._kept(actions[seen.late :])])
        before = np.flatnonzero(keep) - seen.late
        pictures = [[encode_image(picture) for picture in seen.pictures[index]] for index in before]
        return _Steps(keep, pictures, seen.proprio[before])

    def _regenerated(self, demo: Demo, task: Task) -> _Steps | None:
        from avavla_ray.simulators.libero.replay import LiberoReplay, body_poses

        if self._replay is None:
            assert self._config is not None
            self._replay = LiberoReplay(self._config)
        replay = self._replay
        replay.begin(task.index, None if demo.model_file is None else body_poses(demo.model_file))
        if demo.states.shape[1] != replay.state_size:
            raise InputError(
                f"wrong shape: its states hold {demo.states.shape[1]} numbers, the simulator's {replay.state_size}"
            )
        keep = self._kept(demo.actions)
        images, proprio, success = [], [], False
        for kept, state in zip(keep, demo.states, strict=True):
            seen = replay.show(state)
            success |= replay.succeeded()
            if kept:
                images.append([encode_image(picture) for picture in seen.images])
                proprio.append(seen.proprio)
        if not (success or replay.act(demo.actions)):
            return None
        return _Steps(keep, images, np.array(proprio))

    def manifest(self) -> dict[str, Any]:
        """See `Source.manifest`."""
        return {
            "format": "LIBERO HDF5", "image_size": self._size, "cameras": list(CAMERAS),
            "fps": entry_of(self.suite).control_hz,
            "units": {
                "proprio": "position 3 (m), rotation vector 3 (rad), finger joints 2 (m)",
                "action": "OSC_POSE deltas 6 in [-1, 1], gripper -1 open, +1 close",
            },
            "pictures": "states shown again" if self._config else "as recorded",
            "no_op_filter": not self._keep_noops, **self._simulated,
        }  # fmt: skip


def _demos(data: Any) -> tuple[dict[int, str], str | None]:
    """The demos in a file by number, and what is wrong with the list; None if nothing is."""
    if not hasattr(data, "keys"):
        return {}, "not readable: data is no group"
    found = {name: re.fullmatch(r"demo_(0|[1-9]\d*)", name) for name in data}
    demos = {int(match[1]): name for name, match in found.items() if match is not None}
    odd = [name for name, match in found.items() if match is None]
    told = int(data.attrs.get("num_demos", len(demos)))
    if odd:
        return demos, f"not readable: data/{odd[0]} is not named demo_NUMBER"
    if not demos or len(demos) < told:
        return demos, f"missing: {len(demos)} demonstrations of {told or 'any'} that should be there"
    return demos, None
