"""Where all settings of a sweep compete: one actor that has the simulators, the ledger and the rules.

Every setting plays the same episodes in the same random order (common random numbers), as many at a time as there are
simulators. What has been played is in the ledger, on disk at once, and is never played again. A setting is judged by
the episodes from the first one on without a gap, so that neither the number of simulators nor who of them is faster
changes where it ends; episodes that were under way then stay in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avavla_ray.errors import InputError
from avavla_ray.evaluation.budget import LONGEST_WAIT, STEPS, Budget, Judge, Key, Rival, mean_cost
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import Ledger
from avavla_ray.progress import Progress
from avavla_ray.training.run_lock import RunLock

EPISODES = "episodes.jsonl"
AT_A_TIME = 4  # episodes for each simulator between two looks at whom to hand what
COMPLETE, UNFINISHED = "complete", "unfinished"


@dataclass(frozen=True)
class Rules:
    """How settings compete.

    Attributes:
        planned: the episodes of a full evaluation, in random order (`episode_order`).
        cost: what is to be small: latent steps or milliseconds. budget: at most so much of it; None for the front.
        depth: K. longest: decisions that an episode can have.
        error_rate: of ending a setting early for being worse or too dear.
        no_rivals: labels of settings that others are not held against, since they are no choice.
    """

    planned: tuple[Key, ...]
    cost: str
    budget: Budget | None
    depth: int
    longest: int
    error_rate: float
    no_rivals: frozenset[str] = frozenset()

    def judge(self, rivals: Sequence[Rival]) -> Judge:
        """Of the next setting, against those that have been played to the end."""
        limits = [self.budget.limit] if self.budget is not None else [rival.cost for rival in rivals]
        dearest = float(self.depth) if self.cost == STEPS else LONGEST_WAIT * max([*limits, 1e-3])
        return Judge(
            self.planned, self.cost, dearest=dearest, longest=self.longest, budget=self.budget, rivals=rivals,
            error_rate=self.error_rate,
        )  # fmt: skip

    def best(self, points: Sequence[Rival]) -> list[Rival]:
        """Those that others compete with: the best within the budget, the cheaper of equals; without one, the front."""
        if self.budget is not None:
            within = [point for point in points if point.cost <= self.budget.limit]
            return [max(within, key=lambda point: (point.success_rate, -point.cost))] if within else []
        front: list[Rival] = []
        for point in sorted(points, key=lambda point: (point.cost, -point.success_rate)):
            if not front or point.success_rate > front[-1].success_rate:
                front.append(point)
        return front


@dataclass(frozen=True)
class Standing:
    """How a setting did in a search.

    Attributes:
        setting: its label. config: the point of the search space.
        verdict: "complete", "unfinished" for want of episodes, or why the rest was not played (`Judge.verdict`).
        episodes, successes: counted. success: the rate, estimated where it ended early; None where all were lost.
        cost: mean of a decision; None where all were lost.
    """

    setting: str
    verdict: str
    episodes: int
    successes: int
    success: float | None
    cost: float | None
    config: dict[str, float] = field(default_factory=dict)


class Arena:
    """Call `open` first.

    Args:
        make_pool: makes the `EvaluationPool` that plays, of `num_actors`.
    """

    _ledger: Ledger

    def __init__(self, make_pool: Callable[[], Any], num_actors: int) -> None:
        self._make_pool = make_pool
        self._pool: Any = None
        self._at_a_time = AT_A_TIME * max(1, num_actors)
        self._limit: int | None = None

    def open(
        self, output: Path, identity: dict[str, Any], resume: bool, episodes_budget: int | None = None,
        counted: Sequence[Key] = (),
    ) -> None:  # fmt: skip
        """Take a folder, alone: who else has it, maybe a sweep that was killed and is still dying, is waited for.

        Args:
            identity: what is evaluated: a ledger of something else is refused. resume: keep what is in the ledger.
            episodes_budget: how often the `counted` episodes may be played, in all; None for no limit.

        Raises:
            InputError: the ledger is of something else, or holds episodes and `resume` is False.
        """
        self._lock = RunLock(output)
        self._lock.__enter__()  # until this process ends, however it does
        self._ledger, self._limit = Ledger(output / EPISODES, identity, resume), episodes_budget
        self._counted = set(counted)

    def describe(self) -> dict[str, Any]:
        """What a simulator says of itself; starts one."""
        return dict(self._pooled().provenance)

    def records(self) -> list[EpisodeRecord]:
        """All that is in the ledger."""
        return list(self._ledger.records.values())

    def left(self) -> int | None:
        """Episodes that may still be played; None for no limit."""
        if self._limit is None:
            return None
        played = (key for (_, *key), record in self._ledger.records.items() if record.error is None)
        return max(0, self._limit - sum(tuple(key) in self._counted for key in played))

    def play(self, settings: Sequence[ExitSetting], episodes: Sequence[Key], title: str, free: bool = False) -> bool:
        """Play all these episodes at each of the settings, but for those in the ledger.

        Args:
            free: the budget of episodes does not count.

        Returns:
            Whether all were; False where the budget did not allow for the rest.
        """
        wanted = [(setting, *key) for key in episodes for setting in settings]
        todo = [each for each in wanted if (each[0].label, each[1], each[2]) not in self._ledger]
        left = None if free else self.left()
        now = todo if left is None else todo[:left]
        if now:
            with Progress(len(wanted), title, "episodes", done=len(wanted) - len(todo)) as progress:

                def after(_: EpisodeRecord) -> bool:
                    progress.advance(success=self._rate())
                    return False

                self._hand_out(now, after)
        return len(now) == len(todo)

    def compete(self, setting: ExitSetting, rules: Rules) -> Standing:
        """Play one setting until all is played, or the rest need not be.

        What has been played whole is complete, whatever the tests say of it: they end what is still to be played.
        """
        judge = rules.judge(rules.best(self._points(rules, other_than=setting.label)))
        known = all((setting.label, *key) in self._ledger for key in rules.planned)
        seen: list[EpisodeRecord] = []

        def look(_: EpisodeRecord | None) -> bool:
            while (known or judge.verdict is None) and len(seen) < len(rules.planned):
                record = self._ledger.records.get((setting.label, *rules.planned[len(seen)]))
                if record is None:
                    break
                seen.append(record)
                judge.see(record)
            return judge.verdict is not None and not known

        while not look(None) and len(seen) < len(rules.planned):
            todo = [key for key in rules.planned if (setting.label, *key) not in self._ledger]
            left = self.left()
            count = self._at_a_time if left is None else min(self._at_a_time, left)
            if not count:
                break
            self._hand_out([(setting, *key) for key in todo[:count]], look)
        whole = [record for record in seen if record.error is None]
        successes, all_seen = sum(record.success for record in whole), len(seen) == len(rules.planned)
        verdict = COMPLETE if all_seen else judge.verdict or UNFINISHED
        success = judge.estimate(seen)
        if all_seen and whole:
            success = successes / len(whole)  # nothing is left to estimate
        return Standing(setting.label, verdict, len(whole), successes, success, mean_cost(whole, rules.cost))

    def close(self) -> None:
        """End the simulators."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _points(self, rules: Rules, other_than: str) -> list[Rival]:
        """Settings that have been played to the end."""
        by_label: dict[str, dict[Key, EpisodeRecord]] = {}
        for (label, *key), record in self._ledger.records.items():
            by_label.setdefault(label, {})[tuple(key)] = record  # type: ignore[index]
        points = []
        for label, records in by_label.items():
            if label == other_than or label in rules.no_rivals or any(key not in records for key in rules.planned):
                continue
            whole = {key: records[key] for key in rules.planned if records[key].error is None}
            cost = mean_cost(whole.values(), rules.cost)
            if cost is not None:
                points.append(Rival({key: record.success for key, record in whole.items()}, cost))
        return points

    def _hand_out(
        self, episodes: Sequence[tuple[ExitSetting, int, int]], after: Callable[[EpisodeRecord], bool]
    ) -> None:
        from actors.evaluation_pool import Episode

        def finished(_: Any, record: EpisodeRecord, __: Any) -> bool:
            self._ledger.add(record)
            return after(record)

        self._pooled().play([Episode(setting, task, state) for setting, task, state in episodes], finished)

    def _pooled(self) -> Any:
        if self._pool is None:
            self._pool = self._make_pool()
        return self._pool

    def _rate(self) -> float | str:
        whole = [record.success for record in self._ledger.records.values() if record.error is None]
        return sum(whole) / len(whole) if whole else "not known yet"


def start_arena(*arguments: Any) -> Any:
    """An `Arena` as an actor on this machine, where its output folder is. It takes no processor of its own."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Arena).options(scheduling_strategy=here).remote(*arguments)


def asked(reference: Any) -> Any:
    """`ray.get`, with exceptions as they were raised."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from (None if isinstance(error.cause, InputError) else error)
