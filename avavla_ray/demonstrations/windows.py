"""Training batches: windows of T consecutive decisions of several episodes side by side.

Letters: B streams, T decisions, C chunk length, V cameras, H x W pixels, P proprioception, A action dimension, L text
tokens.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from avavla_ray.demonstrations.decisions import (
    Decision,
    DrawLoader,
    DrawnDecisions,
    WindowSettings,
    stored_decision,
)
from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.schedule import DecisionSchedule, Request, decision_steps
from avavla_ray.errors import InputError
from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.openvla.config import OpenVlaConfig

Batch = dict[str, np.ndarray]
Encode = Callable[[str], np.ndarray]
Prepare = Callable[[np.ndarray], np.ndarray]
Source = Callable[[Iterator[Request]], Iterator[DrawnDecisions]]


class WindowWalk:
    """Endless batches for one of `world` workers; every worker sees its own streams of one common order.

    A batch is a dict of numpy arrays, B = len(mine):
        images (B, T, V, H, W, 3) uint8; text (B, T, L) int64; proprio (B, T, P) float32, normalised;
        actions (B, T, C, A) float32, normalised; mask (B, T, C) bool, False past the episode's end;
        starts (B, T) bool, True where the belief is reset to zero;
        counts (T,) int64, how many of `mask` are True over the streams of all workers.

    Attributes:
        mine: the streams of this worker.
    """

    def __init__(
        self,
        mixture: Mixture,
        encode: Encode,
        settings: WindowSettings,
        *,
        episodes: Sequence[Sequence[int]] | None = None,
        rank: int = 0,
        world: int = 1,
        backbone: BackboneConfig | OpenVlaConfig | None = None,
        source: Source | None = None,
    ) -> None:
        """
        Args:
            encode: instruction -> (L,) int64 token ids.
            episodes: indices of each data set to walk over; all when left out.
            backbone: whose pictures to prepare; None leaves them as they are stored.
            source: loads what the walk requests, in that order, with a `DrawLoader` of the same mixture, settings,
                episodes and backbone; by default in this process, each decision when it is its turn.

        Raises:
            InputError: fewer streams than workers, or data sets that do not go together.
        """
        if settings.streams < world:
            raise InputError(f"{settings.streams} streams are too few for {world} workers: give at least one to each")
        loader = DrawLoader(mixture, settings, episodes=episodes, backbone=backbone)
        self.mine = range(rank, settings.streams, world)
        self._settings, self._text = settings, _TextCache(encode)
        self._schedule = DecisionSchedule(
            loader.lengths, settings.streams, settings.chunk, settings.seed, mixture.weights
        )
        self._source = loader.one_by_one if source is None else source
        self._loaded: Iterator[DrawnDecisions] | None = None
        self._held: dict[int, DrawnDecisions] = {}

    def next(self) -> Batch:
        """The next batch of this worker's streams."""
        if self._loaded is None:
            self._loaded = self._source(self._schedule.requests(self.mine))
        chunk, rows = self._settings.chunk, _Rows(self._text, len(self.mine))
        counts = []
        for _ in range(self._settings.decisions):
            visits = self._schedule.advance()
            counts.append(sum(min(chunk, self._schedule.length(visit.draw) - visit.step) for visit in visits))
            for row, stream in enumerate(self.mine):
                visit = visits[stream]
                if stream not in self._held or self._held[stream].request.draw != visit.draw:
                    self._held[stream] = next(self._loaded)
                held = self._held[stream]
                if held.request.draw != visit.draw:
                    raise RuntimeError(f"the source loaded {held.request.draw}, the walk needs {visit.draw}")
                rows.add(row, held.at(visit.position), visit.start)
        return {**rows.batch(), "counts": np.array(counts, np.int64)}

    def state(self) -> dict[str, Any]:
        """Where the walk stands; JSON-ready, the same on every worker and valid for any number of them."""
        return self._schedule.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()` of a walk with the same mixture, settings and episodes."""
        self.close()
        self._schedule.restore(state)

    def close(self) -> None:
        """Let go of what is loaded and being loaded; the walk can go on, and loads it again."""
        if isinstance(self._loaded, Generator):
            self._loaded.close()
        self._loaded, self._held = None, {}


def held_out_batches(
    reader: EpisodeReader,
    encode: Encode,
    episodes: Sequence[int],
    chunk: int,
    streams: int = 16,
    prepare: Prepare | None = None,
) -> Iterator[Batch]:
    """Every decision of `episodes` once, in order, unaugmented, with T = 1: for validation.

    Groups of up to `streams` episodes walk side by side; rows of an episode that has ended are fully masked. The keys
    are those of `WindowWalk`, but for the counts.

    Args:
        prepare: stored pictures (T, V, H, W, 3) uint8 -> as the policy takes them; None leaves them.
    """
    text = _TextCache(encode)
    for first in range(0, len(episodes), streams):
        group = [
            (index, decision_steps(reader.metadata.episodes[index].steps, chunk, chunk))
            for index in episodes[first : first + streams]
        ]
        for turn in range(max(len(steps) for _, steps in group)):
            rows = _Rows(text, len(group))
            for row, (index, steps) in enumerate(group):
                decision = stored_decision(reader, index, steps[min(turn, len(steps) - 1)], chunk)
                images = decision.images if prepare is None else prepare(decision.images[None])[0]
                mask = decision.mask & (turn < len(steps))
                rows.add(row, decision._replace(images=images, mask=mask), turn == 0)
            yield rows.batch()


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


class _TextCache:
    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, instruction: str) -> np.ndarray:
        if instruction not in self._known:
            self._known[instruction] = np.asarray(self._encode(instruction), np.int64)
        return self._known[instruction]


class _Rows:
    """A window in the making: decisions of each stream, in order."""

    def __init__(self, text: _TextCache, count: int) -> None:
        self._text = text
        self._rows: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(count)]

    def add(self, row: int, decision: Decision, start: bool) -> None:
        images, instruction, proprio, actions, mask = decision
        self._rows[row].append((images, self._text(instruction), proprio, actions, mask, np.array(start)))

    def batch(self) -> Batch:
        batch = {}
        for place, name in enumerate(("images", "text", "proprio", "actions", "mask", "starts")):
            flat = np.stack([parts[place] for row in self._rows for parts in row])
            batch[name] = flat.reshape(len(self._rows), -1, *flat.shape[1:])
        return batch
