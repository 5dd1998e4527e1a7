"""Verdicts of the arena, on episodes that were drawn instead of played."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.sweep_arena import COMPLETE, EPISODES, Arena, Rules
from avavla_ray.evaluation.budget import STEPS, Budget, Judge, Key, Rival, episode_order
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import Ledger
from avavla_ray.evaluation.sequential import PairedTest

PLANNED = tuple(episode_order((0,), range(100), seed=0))
RIVAL, CANDIDATE = ExitSetting(exit_threshold=0.5), ExitSetting(exit_threshold=0.6)
IDENTITY = {"suite": "drawn"}


def rules(limit: float | None) -> Rules:
    budget = None if limit is None else Budget(STEPS, limit)
    return Rules(PLANNED, STEPS, budget, depth=5, longest=10, error_rate=0.05)


class DrawnPool:
    """Plays what was drawn: the first so many states of each setting succeed, at so many latent steps a decision."""

    def __init__(self, successes: Mapping[str, int], steps: Mapping[str, int]) -> None:
        self.successes, self.steps, self.played = successes, steps, 0

    def record(self, label: str, key: Key) -> EpisodeRecord:
        steps = [self.steps[label]] * 10
        return EpisodeRecord(label, *key, key[1] < self.successes[label], 80, steps, [1.0] * 10)

    def play(self, episodes: Any, finished: Any) -> None:
        for each in episodes:
            self.played += 1
            record = self.record(each.setting.label, (each.task, each.initial_state))
            if finished(SimpleNamespace(), record, None):
                return


def arena(folder: Path, pool: DrawnPool, played: Mapping[str, tuple[Key, ...]]) -> Arena:
    """One whose ledger holds these episodes already."""
    ledger = Ledger(folder / EPISODES, IDENTITY, resume=False)
    for label, keys in played.items():
        for key in keys:
            ledger.add(pool.record(label, key))
    found = Arena(lambda: pool, 1)
    found.open(folder, IDENTITY, resume=True)
    return found


def drawn(candidate: int, steps: int) -> DrawnPool:
    return DrawnPool(
        {RIVAL.label: 80, CANDIDATE.label: candidate}, {RIVAL.label: 2, CANDIDATE.label: steps}
    )  # fmt: skip


def test_what_is_worse_by_its_last_episode_alone_has_been_played_whole(tmp_path: Path) -> None:
    """One success less of a hundred is certain when all is known, and not before: 79 of 100 belong in the table."""
    for limit in (2.5, None):
        pool = drawn(79, 3 if limit is None else 2)
        here = arena(tmp_path / str(limit), pool, {RIVAL.label: PLANNED})
        standing = here.compete(CANDIDATE, rules(limit))
        assert (standing.verdict, standing.episodes, standing.successes, standing.success) == (COMPLETE, 100, 79, 0.79)
        assert pool.played == 100


def test_what_is_whole_in_the_ledger_is_complete_and_not_judged_by_its_beginning(tmp_path: Path) -> None:
    for name, limit, steps in (("worse", 2.5, 2), ("over", 2.5, 5), ("dominated", None, 5)):
        pool = drawn(20, steps)
        here = arena(tmp_path / name, pool, {RIVAL.label: PLANNED, CANDIDATE.label: PLANNED})
        standing = here.compete(CANDIDATE, rules(limit))
        assert (standing.verdict, standing.episodes, standing.success) == (COMPLETE, 100, 0.2)
        assert pool.played == 0


def test_what_is_hopeless_is_still_ended_early(tmp_path: Path) -> None:
    pool = drawn(20, 2)
    standing = arena(tmp_path, pool, {RIVAL.label: PLANNED}).compete(CANDIDATE, rules(2.5))
    assert standing.verdict == "worse"
    assert standing.episodes < 50


def test_two_claims_share_the_error_rate() -> None:
    """Under a budget a rival and the budget itself can each end a setting; the first setting faces the budget alone."""
    pool = drawn(20, 2)
    outcomes = {key: key[1] < 80 for key in PLANNED}

    def ends(test: Judge | PairedTest) -> int:
        for count, key in enumerate(PLANNED, 1):
            record = pool.record(CANDIDATE.label, key)
            if test.see(record) if isinstance(test, Judge) else test.see(key, record.success):
                return count
        raise AssertionError("never")

    def judge(*rivals: Rival) -> Judge:
        return Judge(PLANNED, STEPS, dearest=5, longest=10, budget=Budget(STEPS, 2.5), rivals=rivals, error_rate=0.05)

    assert ends(judge(Rival(outcomes, 2.0))) == ends(PairedTest(outcomes, 0.025)) > ends(PairedTest(outcomes, 0.05))
    alone = judge()
    for key in PLANNED[:30]:
        alone.see(EpisodeRecord("x", *key, True, 80, [5] * 10, [1.0] * 10))
    assert alone.verdict == "over budget"
