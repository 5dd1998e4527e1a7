"""Where the policy decides for a runner: in a copy in its own process, or in a server that several runners share.

A question holds everything that a decision depends on, randomness included, so that its answer is the same wherever it
is given, whatever it shares a batch with (to rounding), and however often it has to be asked.
Letters: N observations, of which B are decided; V cameras, S image size, L text tokens, P proprioception, M action
tokens, D width, K latent steps, Z latent width, U update width, C chunk, A action dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from actors.weights import WeightHandle, pull_if_newer
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.thresholds import Threshold
from avavla_ray.policy.translation import InputArrays, Translation
from avavla_ray.policy.types import Belief, DecisionBatch, Draws, PolicyInputs
from avavla_ray.simulators.base import SimulatorFailure


class PolicyServerLost(SimulatorFailure):
    """No policy server has answered in time: whoever waited for it should be started again."""


@dataclass(frozen=True)
class Question:
    """Observations: the first B are to be decided, of the others only z_0 is wanted.

    Attributes:
        inputs: N rows. hidden (N, M, D), history (N, Z): the belief before the decision.
        latent (B, K, U), action (B, C, A) or None, exit (B, K) or None: see `Draws`.
    """

    inputs: InputArrays
    hidden: np.ndarray
    history: np.ndarray
    latent: np.ndarray
    action: np.ndarray | None
    exit: np.ndarray | None

    def __len__(self) -> int:
        return len(self.history)

    @property
    def decided(self) -> int:
        """B."""
        return len(self.latent)


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        version: of the weights, the same for all of it.
        rows: B rows by name: the fields of `LatentTrace`, encoding, tokens, chunk and action_log_prob as in
            `Fragment` and `Seen`, and the belief to hand on, hidden and history.
        z0: (N - B, Z).
        batch: number of the forward pass, where it was given. together: questions in it.
    """

    version: int
    rows: dict[str, np.ndarray]
    z0: np.ndarray
    batch: int = 0
    together: int = 1


class Ticket(Protocol):
    """An answer that is on its way."""

    @property
    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        ...

    def result(self) -> Answer: ...


class Placement(Protocol):
    """What a rollout asks for decisions.

    Attributes:
        translation: from its simulators' units and back.
    """

    translation: Translation

    @property
    def version(self) -> int:
        """Of the newest weights that it knows of."""
        ...

    @property
    def woken(self) -> int | None:
        """A file descriptor that becomes readable when a ticket is done, where that takes time."""
        ...

    def use(self, handle: WeightHandle) -> None:
        """Decide with these weights from now on, if they are newer. Raises RayError where they are lost."""
        ...

    def ask(self, question: Question) -> Ticket: ...

    def heard(self) -> None:
        """Whoever waited for `woken` looks at the tickets now."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Given:
    """An answer that is there."""

    answer: Answer
    done: bool = True

    def result(self) -> Answer:
        return self.answer


class PolicyCopy:
    """A policy in this process, in evaluation mode.

    Args:
        exit_threshold: of the gate, as `AvaVlaPolicy.decide` takes it; None takes the policy's own.
        version: of the weights that it has.
    """

    woken: int | None = None

    def __init__(
        self,
        policy: AvaVlaPolicy,
        statistics: Statistics,
        *,
        exit_threshold: Threshold | None = None,
        version: int = -1,
    ) -> None:
        self.policy, self.version = policy, version
        self.translation = Translation(policy.config, statistics)
        self._exit_threshold = exit_threshold

    def use(self, handle: WeightHandle) -> None:
        self.version = pull_if_newer(self.policy, self.version, handle)

    def ask(self, question: Question) -> Given:
        return Given(answer_together(self.policy, [question], self.version, self._exit_threshold)[0])

    def heard(self) -> None:
        """Its tickets are done at once."""

    def close(self) -> None:
        """Nothing is held."""


def answer_together(
    policy: AvaVlaPolicy, questions: list[Question], version: int, exit_threshold: Threshold | None, batch: int = 0
) -> list[Answer]:
    """One forward pass over all that is to be decided, and one over what only z_0 is wanted of."""
    counts = [question.decided for question in questions]
    rows: dict[str, np.ndarray] = {}
    if any(counts):
        inputs, belief = _gathered(questions, [slice(0, count) for count in counts], policy.device)
        draws = Draws(
            _joined([question.latent for question in questions]),
            _joined([question.action for question in questions if question.action is not None]),
            _joined([question.exit for question in questions if question.exit is not None]),
        )
        rows = _rows(policy.decide(inputs, belief, exit_threshold=exit_threshold, draws=draws))
    rests = [len(question) - question.decided for question in questions]
    z0 = np.zeros((0, policy.config.latent.width), np.float32)
    if any(rests):
        inputs, belief = _gathered(questions, [slice(count, None) for count in counts], policy.device)
        z0 = policy.initial_latent(inputs, belief)[1].cpu().numpy()
    answers, at, rest_at = [], 0, 0
    for count, rest in zip(counts, rests, strict=True):
        own = {name: values[at : at + count] for name, values in rows.items()}
        answers.append(Answer(version, own, z0[rest_at : rest_at + rest], batch, len(questions)))
        at, rest_at = at + count, rest_at + rest
    return answers


def _gathered(questions: list[Question], parts: list[slice], device: torch.device) -> tuple[PolicyInputs, Belief]:
    inputs = zip(*(question.inputs for question in questions), strict=True)
    tensors = [_joined([field[part] for field, part in zip(fields, parts, strict=True)]) for fields in inputs]
    hidden = _joined([question.hidden[part] for question, part in zip(questions, parts, strict=True)])
    history = _joined([question.history[part] for question, part in zip(questions, parts, strict=True)])
    moved = [None if tensor is None else tensor.to(device) for tensor in (*tensors, hidden, history)]
    return PolicyInputs(*moved[:3]), Belief(*moved[3:])  # type: ignore[arg-type]


def _joined(parts: list[np.ndarray]) -> Tensor | None:
    """End to end; None of nothing. What came through an object store is read-only, which torch will not have."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0].flags.writeable:
        return torch.from_numpy(parts[0])
    return torch.from_numpy(np.concatenate(parts))


def _rows(decision: DecisionBatch) -> dict[str, np.ndarray]:
    tensors = {
        **decision.trace._asdict(), **decision.context._asdict(), **decision.belief._asdict(),
        "chunk": decision.chunk, "action_log_prob": decision.action_log_prob,
    }  # fmt: skip
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
