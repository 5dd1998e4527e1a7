"""Training batches: windows of T consecutive decisions of several episodes side by side.

Letters: B streams, T decisions, C chunk length, V cameras, H x W pixels, P proprioception, A action dimension, L text
tokens.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.schedule import DecisionSchedule, Visit, decision_steps
from avavla_ray.errors import InputError

Batch = dict[str, np.ndarray]
Encode = Callable[[str], np.ndarray]
Prepare = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class WindowSettings:
    """How demonstrations are cut.

    Attributes:
        streams: B over all workers. decisions: T. chunk: C.
        shift: pictures are moved by up to so many pixels, the same way for all cameras and decisions of a window.
        brightness: pictures are scaled by a factor in [1 - brightness, 1 + brightness], per window.
        proprio_noise: standard deviation of the noise on normalised proprioception, per decision.
        seed: of order, phases and augmentation.
    """

    streams: int = 32
    decisions: int = 1
    chunk: int = 8
    shift: int = 4
    brightness: float = 0.0
    proprio_noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.decisions < 1:
            raise InputError(f"{self.decisions} decisions a window: give at least 1")
        if self.shift < 0 or not 0 <= self.brightness < 1 or self.proprio_noise < 0:
            raise InputError(
                f"shift {self.shift}, brightness {self.brightness}, proprio noise {self.proprio_noise}: "
                "give 0 or more, and a brightness below 1"
            )


class WindowWalk:
    """Endless batches for one of `world` workers; every worker sees its own streams of one common order.

    A batch is a dict of numpy arrays:
        images (B, T, V, H, W, 3) uint8; text (B, T, L) int64; proprio (B, T, P) float32, normalised;
        actions (B, T, C, A) float32, normalised; mask (B, T, C) bool, False past the episode's end;
        starts (B, T) bool, True where the belief is reset to zero.
    """

    def __init__(
        self,
        reader: EpisodeReader,
        encode: Encode,
        settings: WindowSettings,
        *,
        episodes: Sequence[int] | None = None,
        prepare: Prepare | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """
        Args:
            encode: instruction -> (L,) int64 token ids.
            prepare: augmented pictures (T, V, H, W, 3) uint8 -> as the policy takes them; None leaves them.
            episodes: indices to walk over; all when left out.
        """
        if settings.streams % world:
            raise InputError(f"{settings.streams} streams do not divide among {world} workers: give a multiple")
        known = reader.metadata.episodes
        self._episodes = list(range(len(known)) if episodes is None else episodes)
        self._reader, self._settings, self._world = reader, settings, world
        self._mine = range(rank, settings.streams, world)
        self._schedule = DecisionSchedule(
            [known[index].steps for index in self._episodes], settings.streams, settings.chunk, settings.seed
        )
        self._text, self._prepare = _TextCache(encode), prepare
        self._count = 0

    def next(self) -> Batch:
        """The next batch of this worker's streams."""
        settings = self._settings
        window = [self._schedule.advance() for _ in range(settings.decisions)]
        rows = []
        for stream in self._mine:
            visits = [step[stream]._replace(episode=self._episodes[step[stream].episode]) for step in window]
            row = _gather(self._reader, self._text, visits, settings.chunk)
            random = np.random.default_rng([settings.seed, 2, self._count, stream])
            row["images"] = augment(row["images"], settings.shift, settings.brightness, random)
            if self._prepare is not None:
                row["images"] = self._prepare(row["images"])
            if settings.proprio_noise:
                noise = random.normal(0.0, settings.proprio_noise, row["proprio"].shape)
                row["proprio"] = row["proprio"] + noise.astype(np.float32)
            rows.append(row)
        self._count += 1
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def state(self) -> dict[str, Any]:
        """Where the walk stands; JSON-ready, the same on every worker."""
        return {"count": self._count, "schedule": self._schedule.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self._count = state["count"]
        self._schedule.restore(state["schedule"])


def window_batches(
    reader: EpisodeReader, encode: Encode, settings: WindowSettings, *, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Endless batches as `WindowWalk` describes them."""
    walk = WindowWalk(reader, encode, settings, rank=rank, world=world)
    while True:
        yield walk.next()


def held_out_batches(
    reader: EpisodeReader,
    encode: Encode,
    episodes: Sequence[int],
    chunk: int,
    streams: int = 16,
    prepare: Prepare | None = None,
) -> Iterator[Batch]:
    """Every decision of `episodes` once, in order, unaugmented, with T = 1: for validation.

    Groups of up to `streams` episodes walk side by side; rows of an episode that has ended are fully masked.
    """
    text = _TextCache(encode)
    for first in range(0, len(episodes), streams):
        group = [
            (index, decision_steps(reader.metadata.episodes[index].steps, chunk, chunk))
            for index in episodes[first : first + streams]
        ]
        for turn in range(max(len(steps) for _, steps in group)):
            rows = []
            for index, steps in group:
                visit = Visit(index, steps[min(turn, len(steps) - 1)], turn == 0)
                row = _gather(reader, text, [visit], chunk)
                row["mask"] &= turn < len(steps)
                if prepare is not None:
                    row["images"] = prepare(row["images"])
                rows.append(row)
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def prefetch(walk: WindowWalk, depth: int = 2) -> Generator[tuple[Batch, dict[str, Any]], None, None]:
    """Batches made ahead in a thread, each with the walk's state after it. Close the generator to end the thread."""
    ready: queue.Queue[tuple[Batch, dict[str, Any]] | BaseException] = queue.Queue(maxsize=depth)
    ended = threading.Event()

    def put(item: tuple[Batch, dict[str, Any]] | BaseException) -> None:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            while not ended.is_set():
                batch = walk.next()
                put((batch, walk.state()))
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            put(error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        thread.join()


def augment(images: np.ndarray, shift: int, brightness: float, random: np.random.Generator) -> np.ndarray:
    """Move pictures (..., H, W, 3) by up to `shift` pixels (edges repeat) and scale their brightness."""
    if shift:
        down, right = random.integers(-shift, shift + 1, size=2)
        rows = np.clip(np.arange(images.shape[-3]) + down, 0, images.shape[-3] - 1)
        columns = np.clip(np.arange(images.shape[-2]) + right, 0, images.shape[-2] - 1)
        images = images[..., rows[:, None], columns[None, :], :]
    if brightness:
        factor = 1 + random.uniform(-brightness, brightness)
        images = np.clip(images.astype(np.float32) * factor, 0, 255).astype(np.uint8)
    return images


class _TextCache:
    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, instruction: str) -> np.ndarray:
        if instruction not in self._known:
            self._known[instruction] = np.asarray(self._encode(instruction), np.int64)
        return self._known[instruction]


def _gather(reader: EpisodeReader, text: _TextCache, visits: list[Visit], chunk: int) -> Batch:
    """One stream's window: the arrays of `WindowWalk` without B."""
    statistics = reader.metadata.statistics
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("images", "text", "proprio", "actions", "mask")}
    for visit in visits:
        proprio, actions = reader.numbers(visit.episode)
        coming = actions[visit.step : visit.step + chunk]
        padded = np.zeros((chunk, actions.shape[1]), np.float32)
        padded[: len(coming)] = statistics.action.normalise(coming)
        parts["images"].append(reader.images(visit.episode, [visit.step])[0])
        parts["text"].append(text(reader.metadata.episodes[visit.episode].instruction))
        parts["proprio"].append(statistics.proprio.normalise(proprio[visit.step]))
        parts["actions"].append(padded)
        parts["mask"].append(np.arange(chunk) < len(coming))
    return {
        **{name: np.stack(arrays) for name, arrays in parts.items()},
        "starts": np.array([visit.start for visit in visits]),
    }
