"""What the steps of one PPO update report, over an update."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor


class UpdateMeter:
    """What the steps of one update report: each number's mean over the steps that had it."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._numbers: dict[str, int] = defaultdict(int)
        self._kl: list[float] = []

    def see_kl(self, kl: float) -> None:
        """Over all ranks, before the step."""
        self._kl.append(kl)

    def add(self, parts: dict[str, Tensor]) -> None:
        self._numbers["minibatches"] += 1
        self._numbers["policy_minibatches"] += "kl" in parts
        for name, value in parts.items():
            if name != "kl":
                self._sums[name] += float(value)
                self._numbers[name] += 1

    def means(self) -> dict[str, float]:
        """This rank's."""
        return {name: total / self._numbers[name] for name, total in self._sums.items()}

    def counts(self) -> dict[str, float]:
        """What is the same on every rank: steps, and how far the policy had moved at first and at last."""
        steps = {name: float(self._numbers[name]) for name in ("minibatches", "policy_minibatches")}
        return {**steps, "first_kl": self._kl[0], "kl": self._kl[-1]}
