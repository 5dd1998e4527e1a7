"""From one draw of the schedule to everything that its decisions are learned from. Imports without torch.

Letters: n decisions, V cameras, H x W pixels, P proprioception, C chunk length, A action dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from avavla_ray.demonstrations.augmentation import Augmentation, training_pictures
from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.schedule import Draw, Request, decision_steps
from avavla_ray.errors import InputError
from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.openvla.config import OpenVlaConfig


@dataclass(frozen=True)
class WindowSettings:
    """How demonstrations are cut.

    Attributes:
        streams: B over all workers. decisions: T. chunk: C.
        augmentation: of every decision's pictures.
        proprio_noise: standard deviation of the noise on normalised proprioception, per decision.
        seed: of order, phases and augmentation.
    """

    streams: int = 32
    decisions: int = 1
    chunk: int = 8
    augmentation: Augmentation = field(default_factory=Augmentation)
    proprio_noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.decisions < 1:
            raise InputError(f"{self.decisions} decisions a window: give at least 1")
        if self.proprio_noise < 0:
            raise InputError(f"proprio noise {self.proprio_noise}: give 0 or more")


class Decision(NamedTuple):
    """What one decision is learned from.

    images: (V, H, W, 3) uint8, augmented and prepared for the policy. proprio: (P,) float32, normalised.
    actions: (C, A) float32, normalised, zeros past the episode's end. mask: (C,) bool, False there.
    """

    images: np.ndarray
    instruction: str
    proprio: np.ndarray
    actions: np.ndarray
    mask: np.ndarray


class DrawnDecisions(Protocol):
    """The decisions of a request."""

    @property
    def request(self) -> Request: ...

    def at(self, position: int) -> Decision:
        """The decision at a position of the draw that is not before the request's first."""
        ...


@dataclass(frozen=True)
class Decisions:
    """All decisions of a request, in memory: the arrays of `Decision` with n in front."""

    request: Request
    images: np.ndarray
    instruction: str
    proprio: np.ndarray
    actions: np.ndarray
    mask: np.ndarray

    def at(self, position: int) -> Decision:
        index = position - self.request.first_position
        return Decision(
            self.images[index], self.instruction, self.proprio[index], self.actions[index], self.mask[index]
        )


class DrawLoader:
    """Loads what a schedule over `mixture` draws; the same numbers in whichever process and order it is called.

    Picklable, without what it has read.
    """

    def __init__(
        self,
        mixture: Mixture,
        settings: WindowSettings,
        *,
        episodes: Sequence[Sequence[int]] | None = None,
        backbone: BackboneConfig | OpenVlaConfig | None = None,
    ) -> None:
        """
        Args:
            episodes: indices of each data set to learn from; all when left out.
            backbone: whose pictures to prepare; None leaves them as they are stored.

        Raises:
            InputError: the data sets' pictures differ in size and the backbone does not bring them to one.
        """
        self.mixture, self.settings = mixture, settings
        self.episodes = [list(range(len(each.episodes))) for each in mixture.datasets] if episodes is None else episodes
        self._backbone = backbone
        sizes = {each.manifest.get("image_size") for each in mixture.datasets}
        resized = isinstance(backbone, OpenVlaConfig) or (backbone is not None and backbone.crop < 1)
        if len(sizes) > 1 and not resized:
            found = ", ".join(f"{each.folder} {each.manifest.get('image_size')}" for each in mixture.datasets)
            raise InputError(f"pictures of several sizes ({found} pixels): collect or import them in one size")

    @property
    def lengths(self) -> list[list[int]]:
        """Environment steps of each episode to learn from, as the schedule wants them."""
        return [
            [dataset.episodes[index].steps for index in chosen]
            for dataset, chosen in zip(self.mixture.datasets, self.episodes, strict=True)
        ]

    def __call__(self, request: Request) -> Decisions:
        """Load all decisions of a request, in one pass over the episode's pictures."""
        draw, first = request
        index, steps = self._place(draw)
        reader = EpisodeReader(self.mixture.datasets[draw.dataset], cache_megabytes=0)
        decisions = [
            self._decision(reader, draw, position, images)
            for position, images in enumerate(reader.load(index, steps[first:]), first)
        ]
        images, instructions, proprio, actions, mask = zip(*decisions, strict=True)
        return Decisions(
            request, np.stack(images), instructions[0], np.stack(proprio), np.stack(actions), np.stack(mask)
        )

    def count(self, request: Request) -> int:
        """How many decisions a request loads."""
        return len(self._place(request.draw)[1]) - request.first_position

    def instruction(self, draw: Draw) -> str:
        """What the robot was told in a draw's episode."""
        return self.mixture.datasets[draw.dataset].episodes[self._place(draw)[0]].instruction

    def one_by_one(self, requests: Iterator[Request], cache_megabytes: int = 1024) -> Iterator[DrawnDecisions]:
        """Load each decision when it is asked for; decoded pictures are kept as `EpisodeReader` does."""
        share = cache_megabytes // len(self.mixture.datasets)
        readers = [EpisodeReader(dataset, share) for dataset in self.mixture.datasets]
        for request in requests:
            yield _OneByOne(request, self, readers[request.draw.dataset])

    def _place(self, draw: Draw) -> tuple[int, Sequence[int]]:
        """A draw's episode in its data set, and the steps of its decisions."""
        index = self.episodes[draw.dataset][draw.episode]
        length = self.mixture.datasets[draw.dataset].episodes[index].steps
        return index, decision_steps(length, self.settings.chunk, draw.phase)

    def _decision(self, reader: EpisodeReader, draw: Draw, position: int, images: np.ndarray | None = None) -> Decision:
        """One decision; its stored pictures (V, H, W, 3) are read unless they are given."""
        settings = self.settings
        index, steps = self._place(draw)
        stored = stored_decision(reader, index, steps[position], settings.chunk, images)
        random = np.random.default_rng([settings.seed, 2, draw.number, position])
        pictures = training_pictures(stored.images, settings.augmentation, random, self._backbone)
        proprio = stored.proprio
        if settings.proprio_noise:
            proprio = proprio + random.normal(0.0, settings.proprio_noise, proprio.shape).astype(np.float32)
        return stored._replace(images=pictures, proprio=proprio)


@dataclass(frozen=True)
class _OneByOne:
    request: Request
    loader: DrawLoader
    reader: EpisodeReader

    def at(self, position: int) -> Decision:
        return self.loader._decision(self.reader, self.request.draw, position)


def stored_decision(
    reader: EpisodeReader, index: int, step: int, chunk: int, images: np.ndarray | None = None
) -> Decision:
    """The decision at a step of an episode, as it was demonstrated; pictures are read unless they are given."""
    statistics = reader.metadata.statistics
    proprio, actions = reader.numbers(index)
    coming = actions[step : step + chunk]
    padded = np.zeros((chunk, actions.shape[1]), np.float32)
    padded[: len(coming)] = statistics.action.normalise(coming)
    return Decision(
        reader.images(index, [step])[0] if images is None else images,
        reader.metadata.episodes[index].instruction,
        statistics.proprio.normalise(proprio[step]),
        padded,
        np.arange(chunk) < len(coming),
    )
