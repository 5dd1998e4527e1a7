"""What asynchronous PPO reports of itself, in RLlib's MetricsLogger and as flat names for MLflow."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean
from typing import Any

from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_EPISODES_LIFETIME,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from actors.report import Report
from actors.watchdog import KINDS

EPISODE_WINDOW, REPORT_WINDOW = 100, 20
POLICY = "policy"
RUNNER_RESTARTS = (ENV_RUNNER_RESULTS, "restarts")
SIMULATOR_FAILURES = (ENV_RUNNER_RESULTS, "simulator_failures")
SIMULATORS_RESTARTED = {kind: (ENV_RUNNER_RESULTS, f"simulators_restarted_{kind}") for kind in KINDS}
EPISODES_ABORTED = (ENV_RUNNER_RESULTS, "episodes_aborted")
TASKS_QUARANTINED = (ENV_RUNNER_RESULTS, "tasks_quarantined")
USED, DROPPED = (LEARNER_RESULTS, "fragments_used"), (LEARNER_RESULTS, "fragments_dropped")
REFUSED, LEARNER_RESTARTS = (LEARNER_RESULTS, "updates_refused"), (LEARNER_RESULTS, "restarts")


def count(logger: MetricsLogger, key: tuple[str, ...], amount: int = 1) -> None:
    """Add to a total over the whole run."""
    logger.log_value(key, amount, reduce="lifetime_sum")


class RolloutWindow:
    """Means over the last episodes and reports. RLlib's own windows end with every iteration, in which a slow simulator
    may finish no episode at all."""

    def __init__(self) -> None:
        self._episodes: deque[dict[str, float]] = deque(maxlen=EPISODE_WINDOW)
        self._reports: deque[dict[str, float]] = deque(maxlen=REPORT_WINDOW)

    def add(self, report: Report) -> None:
        for episode, task_return in zip(report.finished, report.returns, strict=True):
            self._episodes.append(
                {"success_rate": float(episode.success), EPISODE_RETURN_MEAN: task_return,
                 EPISODE_LEN_MEAN: float(episode.steps)}
            )  # fmt: skip
        if report.decisions:
            self._reports.append(
                {"mean_latent_steps": report.latent_steps / report.decisions,
                 "policy_share": report.policy_seconds / report.seconds,
                 "simulator_share": report.simulator_seconds / report.seconds}
            )  # fmt: skip

    def means(self) -> dict[str, float]:
        """Empty of what has not been seen yet."""
        return {
            name: fmean(row[name] for row in rows)
            for rows in (self._episodes, self._reports) if rows for name in rows[0]
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {"episodes": list(self._episodes), "reports": list(self._reports)}

    def restore(self, state: dict[str, Any]) -> None:
        self._episodes = deque(state["episodes"], maxlen=EPISODE_WINDOW)
        self._reports = deque(state["reports"], maxlen=REPORT_WINDOW)


def log_rollout(logger: MetricsLogger, report: Report) -> None:
    """One runner's report, added to the totals."""
    count(logger, (ENV_RUNNER_RESULTS, NUM_EPISODES_LIFETIME), len(report.finished))
    failures = report.failures
    count(logger, SIMULATOR_FAILURES, failures.total())
    for kind, key in SIMULATORS_RESTARTED.items():
        count(logger, key, failures[kind])
    count(logger, EPISODES_ABORTED, report.aborted)
    logger.log_value(
        (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), report.env_steps,
        reduce="lifetime_sum", with_throughput=True,
    )  # fmt: skip


def log_update(logger: MetricsLogger, update: dict[str, float], rollout: RolloutWindow) -> None:
    """One update: losses and diagnostics as they are, and how rollouts went lately."""
    for name, value in update.items():
        logger.log_value((LEARNER_RESULTS, POLICY, name), value, window=1)
    for name, value in rollout.means().items():
        logger.log_value((ENV_RUNNER_RESULTS, name), value, window=1)
    # RLlib ends an iteration when this has grown.
    count(logger, (LEARNER_RESULTS, ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), int(update["env_steps"]))


def flat(result: dict[str, Any]) -> dict[str, float]:
    """An iteration's result as names for MLflow: "rollout/success_rate", "learner/kl", "total/env_steps", ..."""
    runners, learners = result.get(ENV_RUNNER_RESULTS, {}), result.get(LEARNER_RESULTS, {})
    rollout = {
        "success_rate": "success_rate", "return": EPISODE_RETURN_MEAN, "episode_steps": EPISODE_LEN_MEAN,
        "mean_latent_steps": "mean_latent_steps", "policy_share": "policy_share", "simulator_share": "simulator_share",
    }  # fmt: skip
    totals = {
        "env_steps": runners.get(NUM_ENV_STEPS_SAMPLED_LIFETIME), "episodes": runners.get(NUM_EPISODES_LIFETIME),
        "runner_restarts": runners.get(RUNNER_RESTARTS[1], 0), "learner_restarts": learners.get(LEARNER_RESTARTS[1], 0),
        "simulator_failures": runners.get(SIMULATOR_FAILURES[1]), "updates_refused": learners.get(REFUSED[1], 0),
        **{key: runners.get(key) for _, key in (*SIMULATORS_RESTARTED.values(), EPISODES_ABORTED)},
        "tasks_quarantined": runners.get(TASKS_QUARANTINED[1], 0),
        "fragments_used": learners.get(USED[1]), "fragments_dropped": learners.get(DROPPED[1]),
    }  # fmt: skip
    named = {
        **{f"rollout/{name}": runners.get(key) for name, key in rollout.items()},
        **{f"learner/{name}": value for name, value in learners.get(POLICY, {}).items()},
        **{f"total/{name}": value for name, value in totals.items()},
    }
    # RLlib reports NaN for what was not logged in an iteration.
    return {name: float(value) for name, value in named.items() if value is not None and not math.isnan(value)}
