"""A sweep of exit settings on one suite: what is listed, what a replay proposes, what a search finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import ray
from ray import tune

from actors.sweep_arena import COMPLETE, EPISODES, UNFINISHED, Rules, Standing, asked, start_arena
from actors.sweep_report import Report, against, search_table
from actors.sweep_search import TRIALS, Trials, reported, search
from actors.sweep_subject import Subject
from avavla_ray.errors import InputError
from avavla_ray.evaluation.budget import MILLISECONDS, STEPS, Budget
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, family
from avavla_ray.evaluation.proposal import fill_gaps, proposal_table, recorded_scores, threshold_for
from avavla_ray.evaluation.results import Ledger
from avavla_ray.evaluation.tables import cell
from avavla_ray.provenance import provenance
from tune_spaces.exit_thresholds import ExitSpace

PROPOSAL, SEARCH = "proposal.md", "search.md"


class Sweep:
    """Use it in a `with` block.

    Args:
        settings: of jobs/sweep_exit.py. servers: see `EvaluationPool`.
    """

    def __init__(self, subject: Subject, settings: Any, report: Report, servers: int) -> None:
        self.subject, self.folder = subject, settings.output / subject.name
        self._settings, self._report = settings, report
        self._listed: dict[str, ExitSetting] = {}
        self._standings: dict[str, Standing] = {}
        self._results: dict[str, dict[str, Any]] = {}
        pool = subject.pool(settings.num_runners, settings.isolate, servers, settings.server_gpus or 0.0)
        self._arena = start_arena(pool, settings.num_runners)

    @staticmethod
    def check(subject: Subject, settings: Any, budget: Budget | None, listed: Iterable[ExitSetting]) -> None:
        """Refuse a folder that holds something else, without writing anything.

        Raises:
            InputError: it holds episodes or trials that nobody asked to resume, or those of something else; or with
                what is in it already, `listed` takes more episodes than may be played.
        """
        folder = settings.output / subject.name
        found = Ledger.check(folder / EPISODES, subject.identity, settings.resume)
        if settings.search != "grid":
            Trials.check(folder / TRIALS, _searched(subject, settings, budget), settings.resume)
        planned = set(subject.planned)
        whole = {(each["setting"], each["task"], each["initial_state"]) for each in found if each["error"] is None}
        counted = {each for each in whole if each[1:] in planned}
        counted |= {(setting.label, *key) for setting in listed for key in planned}
        if settings.episodes_budget is not None and settings.episodes_budget < len(counted):
            raise InputError(
                f"--episodes-budget {settings.episodes_budget}: what {folder} holds and what is played in any case are "
                f"{len(counted)} episodes: give more, or fewer --thresholds and --depths"
            )

    def __enter__(self) -> Sweep:
        subject, settings = self.subject, self._settings
        try:
            asked(
                self._arena.open.remote(
                    self.folder.absolute(), subject.identity, settings.resume, settings.episodes_budget, subject.planned
                )
            )
            simulator = asked(self._arena.describe.remote())
        except BaseException:
            ray.kill(self._arena)
            raise
        self._described = provenance(
            seed=settings.seed, simulator=simulator, trained=subject.checkpoint.provenance,
            deviations=list(subject.deviations),
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            asked(self._arena.close.remote())
        ray.kill(self._arena)

    def records(self) -> list[EpisodeRecord]:
        """All episodes of this sweep's tasks that have been played, by whatever sweep the folder has seen."""
        return [each for each in asked(self._arena.records.remote()) if each.task in self.subject.tasks]

    def play(self, settings: Iterable[ExitSetting]) -> None:
        """Play these to the end.

        Raises:
            InputError: there are not so many episodes in the budget.
        """
        new = [setting for setting in settings if setting.label not in self._listed]
        self._listed |= {setting.label: setting for setting in new}
        title = f"sweep {self.subject.label} on {self.subject.suite}"
        if not asked(self._arena.play.remote(new, self.subject.planned, title)):
            raise InputError(
                f"--episodes-budget {self._settings.episodes_budget} is used up by what is listed to be played in any "
                "case: give more, or fewer --thresholds and --depths"
            )

    def propose(self, count: int) -> tuple[ExitSetting, ...]:
        """So many more thresholds, by a replay of the gate's scores at full depth; written down with what it is not."""
        records = self._full_depth()
        scores = recorded_scores(records, self.subject.depth)
        listed = [each.exit_threshold for each in self._listed.values() if isinstance(each.exit_threshold, float)]
        found = fill_gaps(scores, [0.0, *listed, 1.0], count)
        self._show(PROPOSAL, proposal_table(scores, [*listed, *found]))
        return tuple(ExitSetting(exit_threshold=value) for value in found)

    def search(self, budget: Budget | None) -> None:
        """Let Ray Tune search, beginning with what a replay proposes.

        Raises:
            InputError: the folder holds a search for something else.
        """
        subject, settings = self.subject, self._settings
        instructions = [subject.spec.instructions[task] for task in subject.tasks]
        space = ExitSpace.of(settings.by, subject.depth, instructions)
        cost = STEPS if budget is None else budget.cost
        depths = [ExitSetting(fixed_depth=steps).label for steps in range(subject.depth + 1)]
        rules = Rules(
            subject.planned, cost, budget, subject.depth, subject.longest, settings.error_rate,
            frozenset(depths if settings.recommend == "adaptive" else ()),
        )  # fmt: skip
        trials = Trials(self.folder / TRIALS, _searched(subject, settings, budget), settings.resume)
        self._complete(trials, space, rules)
        first = self._first(space, budget)
        search(
            space, settings.search, seed=settings.seed, rules=rules, arena=self._arena, trials=trials,
            count=settings.trials, first=first, folder=self.folder.absolute(), callbacks=[_Finished(self, space)],
        )  # fmt: skip
        for standing in trials.records.values():
            self.finished(standing, space)
        text = search_table(trials.records.values(), space, cost)
        self._show(SEARCH, text)

    def finished(self, standing: Standing, space: ExitSpace) -> None:
        """A setting of the search has been judged: its result is written, once."""
        setting = space.setting(standing.config)
        self._standings[setting.label] = standing
        if setting.label not in self._results:
            records = self.records() if standing.verdict == COMPLETE else self._counted(standing)
            self._results[setting.label] = self._write(
                setting, records, verdict=standing.verdict, estimated_success=standing.success
            )

    def results(self) -> list[dict[str, Any]]:
        """Of all settings that were played to the end."""
        records = self.records()
        for label, setting in self._listed.items():
            if label not in self._results:
                self._results[label] = self._write(setting, records, verdict=COMPLETE)
        whole = {*self._listed, *(label for label, each in self._standings.items() if each.verdict == COMPLETE)}
        return [result for label, result in self._results.items() if label in whole]

    def confirm(self, setting: ExitSetting) -> list[str]:
        """Play it, and full depth, from initial states that nothing was chosen on; what came of it, for people."""
        subject = self.subject
        if not subject.further and self._settings.confirm == 0:
            return ["Not confirmed on further initial states: --confirm 0."]
        if not subject.further:
            return [
                f"Not confirmed: {subject.suite} has no initial states left beyond the {subject.states} a task that "
                "settings were compared on."
            ]
        full = ExitSetting(fixed_depth=subject.depth)
        both = list({each.label: each for each in (setting, full)}.values())
        asked(self._arena.play.remote(both, subject.confirming, "confirming", True))
        states = range(subject.states, subject.states + subject.further)
        records = self.records()
        lines = []
        for each in both:
            result = self._write(each, records, kind="confirmation", states=states)
            low, high = result["ci95"]
            lines.append(
                f"Confirmed on {subject.further} further initial states a task that nothing was chosen on: "
                f"{each.title}: {result['successes']}/{result['episodes']} successes (95 % interval {low:.1%} to "
                f"{high:.1%}), {cell(result['mean_latent_steps'], '.2f')} latent steps, "
                f"{cell(result['ms_mean'], '.1f')} ms a decision."
            )
        fresh = [record for record in records if record.initial_state in states]
        return [*lines, *([against(setting, full, fresh, "there")] if len(both) > 1 else [])]

    def compare(self, setting: ExitSetting) -> list[str]:
        """Against full depth on the states of the sweep, where that was played."""
        full = ExitSetting(fixed_depth=self.subject.depth)
        if full.label not in self._listed or setting.label == full.label:
            return []
        seen = [record for record in self.records() if record.initial_state < self.subject.states]
        return [against(setting, full, seen, "on the states of the sweep")]

    @property
    def ended_early(self) -> int:
        """Settings that a test has ended; of one that the budget of episodes cut off, nothing was decided."""
        return sum(standing.verdict not in (COMPLETE, UNFINISHED) for standing in self._standings.values())

    def _write(
        self, setting: ExitSetting, records: Sequence[EpisodeRecord], kind: str = "evaluation",
        states: Iterable[int] | None = None, **tags: Any,
    ) -> dict[str, Any]:  # fmt: skip
        wanted = range(self.subject.states) if states is None else states
        return self._report.write(self.subject, setting, records, wanted, self._described, kind, **tags)

    def _complete(self, trials: Trials, space: ExitSpace, rules: Rules) -> None:
        """Play again what simulators had given up of settings that are complete: a resumed ledger has forgotten that.

        Where no episode is left for it, a setting stays as it is known. One that was ended early, and is now listed to
        be played in any case, becomes complete.
        """
        played = {(each.setting, each.task, each.initial_state) for each in self.records()}
        for standing in list(trials.records.values()):
            complete = standing.verdict == COMPLETE
            whole = all((standing.setting, *key) in played for key in rules.planned)
            if complete == whole or not (complete or standing.setting in self._listed):
                continue
            setting = space.setting(standing.config)
            if asked(self._arena.play.remote([setting], rules.planned, f"again, of {setting.title}")):
                found: Standing = asked(self._arena.compete.remote(setting, rules))
                trials.add(replace(found, config=standing.config))

    def _counted(self, standing: Standing) -> list[EpisodeRecord]:
        """The episodes by which a setting was ended early: what was under way then depends on who plays."""
        played = {(each.task, each.initial_state): each for each in self.records() if each.setting == standing.setting}
        ordered = [played[key] for key in self.subject.planned if key in played]
        ends = [index for index, each in enumerate(ordered, 1) if each.error is None]
        return ordered[: ends[standing.episodes - 1]] if 0 < standing.episodes <= len(ends) else []

    def _full_depth(self) -> list[EpisodeRecord]:
        full = ExitSetting(fixed_depth=self.subject.depth).label
        return [each for each in self.records() if each.setting == full and each.initial_state < self.subject.states]

    def _first(self, space: ExitSpace, budget: Budget | None) -> list[dict[str, float]]:
        """Points to begin a search with: where the replay meets the budget, or spread over the front."""
        records, depth = self._full_depth(), self.subject.depth
        scores = recorded_scores(records, depth)
        if budget is None or budget.cost == MILLISECONDS:  # milliseconds can't be replayed
            found = fill_gaps(scores, (0.0, 1.0), 3)
            self._show(PROPOSAL, proposal_table(scores, found))
            return [space.spread(value) for value in found]
        targets = [budget.limit, 0.8 * budget.limit]
        found = tuple(threshold_for(scores, target) for target in targets)
        self._show(PROPOSAL, proposal_table(scores, found))
        points = [space.spread(value) for value in found]
        if space.by == "family":
            of_task = {task: family(self.subject.spec.instructions[task]) for task in self.subject.tasks}
            own = {
                f"threshold_{name}": threshold_for(
                    recorded_scores([each for each in records if of_task[each.task] == name], depth), budget.limit
                )
                for name in space.families
            }
            points.insert(0, own)
        return points

    def _show(self, name: str, table: str) -> None:
        self._report.keep(self.folder / name, table)
        print(f"\n{table}", flush=True)


def _searched(subject: Subject, settings: Any, budget: Budget | None) -> dict[str, Any]:
    """What tells the trials of a search from those of others."""
    return {
        **subject.identity, "by": settings.by, "budget": str(budget), "episodes": subject.states,
        "tasks": list(subject.tasks), "error_rate": settings.error_rate,
        **({"recommend": settings.recommend} if settings.recommend != "any" else {}),
    }  # fmt: skip


class _Finished(tune.Callback):
    """Tells the sweep of each trial as soon as it has been judged."""

    def __init__(self, sweep: Sweep, space: ExitSpace) -> None:
        self._sweep, self._space = sweep, space

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of everything to restore a search from, which is not how ours is resumed

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        standing = reported(trial.last_result)
        rate = cell(standing.success, ".1%")
        print(
            f"{self._space.setting(standing.config).title}: {standing.verdict} after {standing.episodes} episodes, "
            f"success {rate}, cost {cell(standing.cost, '.2f')}",
            flush=True,
        )
        self._sweep.finished(standing, self._space)
