"""What a proof is made of: steps, each a job with its words, and rows, each an evaluation that is published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avavla_ray.evaluation.proofs.targets import Target


@dataclass(frozen=True)
class Inside:
    """A path below the proof's folder, wherever that is."""

    path: str

    @property
    def step(self) -> str:
        """Key of the step that writes it."""
        return self.path.partition("/")[0]


Word = str | int | float | Inside


@dataclass(frozen=True)
class Step:
    """A job of the chain.

    Attributes:
        key: folder that it writes, in the proof's. title: for people. job: of jobs/JOB.py.
        words: all that decides its outcome. What does not (where it writes, how many actors) is added by the chain.
        makes: file in its folder without which it is not finished, whatever its notes say.
    """

    key: str
    title: str
    job: str
    words: tuple[Word, ...]
    makes: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Keys of the steps whose files it reads."""
        return tuple(dict.fromkeys(word.step for word in self.words if isinstance(word, Inside)))

    def spelled(self, folder: Path) -> list[str]:
        """Its words for a proof in this folder."""
        return [str(folder / word.path) if isinstance(word, Inside) else str(word) for word in self.words]


@dataclass(frozen=True)
class Play:
    """A published row: an evaluation at one exit setting.

    Attributes:
        title: of the row. step: key of the evaluation. against: title of the row that it is compared with, from the
            same initial states; "" for none.
    """

    title: str
    step: str
    against: str = ""


@dataclass(frozen=True)
class Proof:
    """A chain of steps that shows something.

    Attributes:
        sentence: what it shows. steps: in their order. plays: rows. targets: what the rows are to reach.
    """

    name: str
    sentence: str
    steps: tuple[Step, ...]
    plays: tuple[Play, ...]
    targets: tuple[Target, ...] = ()

    def needed(self, key: str) -> tuple[Step, ...]:
        """A step and all that it is made of, in their order."""
        wanted = {key}
        for step in reversed(self.steps):
            if step.key in wanted:
                wanted |= set(step.reads)
        return tuple(step for step in self.steps if step.key in wanted)
