"""One simulator of a runner with the episode in it, and the simulators that are decided for together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from actors.dealing import WeightedDealer
from actors.groups import Group
from actors.placement import Answer, Question, Ticket
from actors.rows import DECIDED, Rows
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.translation import Translation
from avavla_ray.simulators.base import EpisodeSummary, Observation, Simulator

CHUNK, RESET = "chunk", "reset"


@dataclass
class Episode:
    """An episode that is under way, and what has come of it so far."""

    name: str
    task: int
    seed: int
    group: Group | None
    instruction: str = ""
    steps: int = 0
    decisions: int = 0
    latent_steps: int = 0
    task_return: float = 0.0

    def summary(self, success: bool) -> EpisodeSummary:
        return EpisodeSummary(
            episode_id=self.name, task=self.task, initial_state=None, seed=self.seed, success=success,
            steps=self.steps, decisions=self.decisions, latent_steps=self.latent_steps / self.decisions,
        )  # fmt: skip


@dataclass
class Slot:
    """A simulator.

    Attributes:
        starts, noise: its own randomness, for where episodes begin and for what is decided in them, so that neither
            depends on what other simulators do.
        flying: what its simulator is at, CHUNK or RESET. late: the others of its buffer have gone on without it.
        actions: (C, A), of that chunk.
        observation: what is to be decided on; None while there is none.
        hidden (M, D), history (Z,): belief. latent_steps: of the decision whose chunk is flying.
        rows: of the fragment in the making.
        asked: decisions since the order began. begun: episodes. fruitless: starts that failed, and losses together
            with others, since its last chunk.
    """

    simulator: Simulator
    dealer: WeightedDealer
    starts: np.random.Generator
    noise: np.random.Generator
    rows: Rows
    hidden: np.ndarray
    history: np.ndarray
    name: str
    flying: str | None = None
    late: bool = False
    actions: np.ndarray | None = None
    observation: Observation | None = None
    episode: Episode | None = None
    latent_steps: int = 0
    asked: int = 0
    begun: int = 0
    fruitless: int = 0

    @property
    def playing(self) -> Episode:
        assert self.episode is not None, "no episode has begun"
        return self.episode


@dataclass
class Closing:
    """The end of rows, at `position`, which waits for z_0 of the observation that they stopped at.

    Attributes:
        whole: nothing is added to the rows any more: they become a fragment.
    """

    rows: Rows
    position: int
    observation: Observation
    hidden: np.ndarray
    history: np.ndarray
    whole: bool
    group: Group | None

    @classmethod
    def of(cls, slot: Slot, observation: Observation, *, whole: bool) -> Closing:
        slot.rows.awaited()
        group = None if slot.episode is None else slot.episode.group
        return cls(slot.rows, len(slot.rows) - 1, observation, slot.hidden, slot.history, whole, group)


@dataclass
class Buffer:
    """Simulators that are decided for in one batch: while the policy decides for one buffer, the others' step.

    Attributes:
        ticket: the answer that is awaited, to `question`, about `asked` and `closings`.
        since: when its simulators last began something, or its question was asked. landed: when the first of them had
            landed, while others have not.
    """

    slots: list[Slot]
    ticket: Ticket | None = None
    question: Question | None = None
    asked: list[Slot] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    landed: float | None = None

    @property
    def flying(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.flying is not None]


def make_question(
    slots: list[Slot], closings: list[Closing], translation: Translation, *, actions: bool, exits: bool
) -> Question:
    """What is to be decided for the slots, with randomness of their own; and z_0 of the closings' observations."""
    config = translation.config
    latent, action, exit_ = _draw(slots, config, actions=actions, exits=exits)
    observations = [slot.observation for slot in slots if slot.observation is not None]
    return Question(
        translation.inputs(observations + [closing.observation for closing in closings]),
        np.stack([place.hidden for place in slots] + [place.hidden for place in closings]),
        np.stack([place.history for place in slots] + [place.history for place in closings]),
        latent, action, exit_,
    )  # fmt: skip


def _draw(
    slots: list[Slot], config: PolicyConfig, *, actions: bool, exits: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    B, K = len(slots), config.latent.max_steps
    latent = np.empty((B, K, config.latent.update_dim), np.float32)
    action = np.empty((B, config.chunk, config.action_dim), np.float32) if actions else None
    exit_ = np.empty((B, K), np.float32) if exits else None
    for row, slot in enumerate(slots):
        slot.noise.standard_normal(out=latent[row], dtype=np.float32)
        if action is not None:
            slot.noise.standard_normal(out=action[row], dtype=np.float32)
        if exit_ is not None:
            slot.noise.random(out=exit_[row], dtype=np.float32)
    return latent, action, exit_


def to_keep(question: Question, answer: Answer, *, seen: bool) -> Mapping[str, np.ndarray]:
    """The arrays of a decision that a fragment holds, by the names that `Rows` gives them."""
    kept = {name: answer.rows[name] for name in DECIDED}
    if seen:
        kept |= {f"seen/{name}": values for name, values in question.inputs._asdict().items()}
        kept |= {"seen/hidden": question.hidden, "seen/history": question.history}
        kept |= {f"seen/{name}": answer.rows[name] for name in ("chunk", "action_log_prob")}
    return kept
