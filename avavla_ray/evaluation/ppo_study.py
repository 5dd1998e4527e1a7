"""Ways of doing PPO side by side: what a study trains, and which of it each picture compares (jobs/study_ppo.py).

Every variant is the study's base with one thing changed. A run that several panels show is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from avavla_ray.errors import InputError, check_known

LAGS = (1, 4, 16)
BASE = "base"
PANELS = {
    "asynchrony": "asynchronous or synchronous",
    "staleness": "what old experience costs, and what corrects for it",
    "what_learns": "latent steps only, or the executed actions too",
    "cloning": "cloning beside it, or not",
}


@dataclass(frozen=True)
class Way:
    """How a run does PPO, where variants differ.

    Attributes:
        max_lag: experience of weights more than so many versions old is dropped; 0 is synchronous.
        train_actions: the executed chunks are drawn and learn, too.
        demos: the policy is cloned beside it.
        delay: updates that experience has to wait for; None leaves the queue as it is.
    """

    max_lag: int = 4
    correction: str = "decoupled"
    train_actions: bool = False
    demos: bool = True
    delay: int | None = None

    def flags(self, update_decisions: int, demos: str | None, actions: Sequence[Any] = ()) -> list[Any]:
        """Of jobs/ppo_libero.py, over the study's recipe.

        Args:
            update_decisions: of that recipe. demos: the demonstrations. actions: more words where chunks are drawn.
        """
        words: list[Any] = ["--max-lag", self.max_lag, "--correction", self.correction]
        if self.train_actions:
            words += ["--train-actions", *actions]
        if self.demos and demos is not None:
            words += ["--demos", demos]
        if self.delay is not None:
            # No room beyond what has to wait: else a learner that is slower than the runners finds it older still.
            room = (1 + self.delay) * update_decisions
            words += ["--delay-updates", self.delay, "--queue-decisions", room]
        return words


@dataclass(frozen=True)
class Line:
    """A variant in a panel. colour: index of one. dashed: drawn so."""

    label: str
    variant: str
    colour: int
    dashed: bool = False


def ways(base: Way) -> dict[str, Way]:
    """All variants by name, the base first.

    At a lag of L everything waits for L updates, and up to one more goes by while it is made and the learner is busy.
    What is older than that is kept, too: else variants would also differ in what they throw away.

    Raises:
        InputError: the base is synchronous.
    """
    if base.max_lag == 0:
        raise InputError("the study's base is asynchronous: take a --recipe whose max_lag is more than 0")
    late = {
        f"{correction}_lag_{lag}": replace(base, correction=correction, max_lag=lag + 2, delay=lag)
        for lag in LAGS
        for correction in ("decoupled", "naive")
    }
    other = "latent_only" if base.train_actions else "actions"
    return {
        BASE: base,
        "synchronous": replace(base, max_lag=0),
        **late,
        other: replace(base, train_actions=not base.train_actions),
        "no_cloning": replace(base, demos=False),
    }


def lines(panel: str, base: Way) -> list[Line]:
    """What a panel shows, in the order of its legend."""
    if panel == "asynchrony":
        return [Line(f"asynchronous, at most {base.max_lag} behind", BASE, 0), Line("synchronous", "synchronous", 1)]
    if panel == "staleness":
        late = [
            Line(f"{correction}, lag {lag}", f"{correction}_lag_{lag}", colour, dashed=correction == "naive")
            for colour, lag in enumerate(LAGS, start=1)
            for correction in ("decoupled", "naive")
        ]
        return [Line(f"{base.correction}, lag as it comes", BASE, 0), *late]
    if panel == "what_learns":
        latent, actions = ("latent_only", BASE) if base.train_actions else (BASE, "actions")
        return [Line("latent steps only", latent, 0), Line("actions too", actions, 1)]
    check_known("panel", panel, PANELS)
    return [Line("cloning beside it", BASE, 0), Line("PPO alone", "no_cloning", 1)]


def chosen(panels: Sequence[str], base: Way) -> dict[str, Way]:
    """The variants that these panels need, the base first, which all are compared with.

    Raises:
        InputError: an unknown panel, or one that the base has nothing for.
    """
    if len(set(panels)) < len(panels):
        raise InputError(f"--panels {' '.join(panels)}: give each once")
    shown = {line.variant for panel in panels for line in lines(panel, base)}
    if "cloning" in panels and not base.demos:
        raise InputError("--panels cloning compares with cloning beside PPO: give --demos, or leave that panel out")
    return {name: way for name, way in ways(base).items() if name == BASE or name in shown}
