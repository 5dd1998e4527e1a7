"""What asynchronous PPO reports of itself, in RLlib's MetricsLogger and as flat names for MLflow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
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

EPISODE_WINDOW, TASK_WINDOW, REPORT_WINDOW = 100, 20, 20
POLICY = "policy"
TASK_SUCCESS = "task_success/"  # and the task's number
RUNNER_RESTARTS = (ENV_RUNNER_RESULTS, "restarts")
SIMULATOR_FAILURES = (ENV_RUNNER_RESULTS, "simulator_failures")
SIMULATORS_RESTARTED = {kind: (ENV_RUNNER_RESULTS, f"simulators_restarted_{kind}") for kind in KINDS}
EPISODES_ABORTED = (ENV_RUNNER_RESULTS, "episodes_aborted")
TASKS_QUARANTINED = (ENV_RUNNER_RESULTS, "tasks_quarantined")
USED, DROPPED = (LEARNER_RESULTS, "fragments_used"), (LEARNER_RESULTS, "fragments_dropped")
REFUSED, LEARNER_RESTARTS = (LEARNER_RESULTS, "updates_refused"), (LEARNER_RESULTS, "restarts")
SERVER_RESTARTS = (ENV_RUNNER_RESULTS, "server_restarts")
DECISIONS, DECISIONS_USED = (ENV_RUNNER_RESULTS, "decisions"), (LEARNER_RESULTS, "decisions_used")
DECISIONS_DROPPED = (LEARNER_RESULTS, "decisions_dropped")
RELEASED, ASKED_FOR = (ENV_RUNNER_RESULTS, "runners_released"), (ENV_RUNNER_RESULTS, "runners_asked_for")
QUEUE = (LEARNER_RESULTS, "queue_decisions")
LAG, PROFILE = "lag", "profile"  # parents of metrics whose names are only known when they are logged


def count(logger: MetricsLogger, key: tuple[str, ...], amount: int = 1) -> None:
    """Add to a total over the whole run."""
    logger.log_value(key, amount, reduce="lifetime_sum")


class RolloutWindow:
    """Means over the last episodes and reports. RLlib's own windows end with every iteration, in which a slow simulator
    may finish no episode at all."""

    def __init__(self) -> None:
        self._episodes: deque[dict[str, float]] = deque(maxlen=EPISODE_WINDOW)
        self._tasks: dict[int, deque[float]] = {}
        self._reports: deque[dict[str, float]] = deque(maxlen=REPORT_WINDOW)

    def add(self, report: Report) -> None:
        for episode, task_return in zip(report.finished, report.returns, strict=True):
            self._episodes.append(
                {"success_rate": float(episode.success), EPISODE_RETURN_MEAN: task_return,
                 EPISODE_LEN_MEAN: float(episode.steps)}
            )  # fmt: skip
            self._tasks.setdefault(episode.task, deque(maxlen=TASK_WINDOW)).append(float(episode.success))
        if report.decisions:
            self._reports.append(
                {"mean_latent_steps": report.latent_steps / report.decisions,
                 "policy_share": report.policy_seconds / report.seconds,
                 "simulator_share": report.simulator_seconds / report.seconds}
            )  # fmt: skip

    def means(self) -> dict[str, float]:
        """Empty of what has not been seen yet."""
        means = {
            name: fmean(row[name] for row in rows)
            for rows in (self._episodes, self._reports) if rows for name in rows[0]
        }  # fmt: skip
        return means | {f"{TASK_SUCCESS}{task}": fmean(seen) for task, seen in sorted(self._tasks.items())}

    def state(self) -> dict[str, Any]:
        tasks = {task: list(seen) for task, seen in self._tasks.items()}
        return {"episodes": list(self._episodes), "tasks": tasks, "reports": list(self._reports)}

    def restore(self, state: dict[str, Any]) -> None:
        self._episodes = deque(state["episodes"], maxlen=EPISODE_WINDOW)
        self._tasks = {task: deque(seen, maxlen=TASK_WINDOW) for task, seen in state.get("tasks", {}).items()}
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
    count(logger, DECISIONS, report.decisions)
    if report.timings:
        log_timings(logger, {**report.timings, "runner/idle": report.idle_seconds})


def log_timings(logger: MetricsLogger, timings: Mapping[str, float]) -> None:
    """Seconds by path of a process's timing tree, added to the totals of that kind of process."""
    for path, seconds in timings.items():
        logger.log_value((PROFILE, path), seconds, reduce="lifetime_sum")


def log_queue(logger: MetricsLogger, decisions: int) -> None:
    """How many decisions wait to be learned from."""
    logger.log_value(QUEUE, decisions, window=1)


def log_lag(logger: MetricsLogger, lags: Mapping[int, int]) -> None:
    """The decisions that an update has learned from, by how many versions older than its weights they are."""
    count(logger, DECISIONS_USED, sum(lags.values()))
    for lag, decisions in lags.items():
        logger.log_value((LEARNER_RESULTS, LAG, str(lag)), decisions, reduce="sum")


def log_update(logger: MetricsLogger, update: dict[str, float], rollout: RolloutWindow) -> None:
    """One update: losses and diagnostics as they are, and how rollouts went lately."""
    timings = {name: value for name, value in update.items() if name.startswith(f"{PROFILE}/")}
    if timings:  # of all ranks the first's, from the end of its last update on
        spent = {name.removeprefix(f"{PROFILE}/"): seconds for name, seconds in timings.items()}
        log_timings(logger, {**spent, "learner/idle": spent["learner"] - update["update_seconds"]})
    for name, value in update.items():
        if name not in timings:
            logger.log_value((LEARNER_RESULTS, POLICY, name), value, window=1)
    for name, value in rollout.means().items():
        logger.log_value((ENV_RUNNER_RESULTS, name), value, window=1)
    # RLlib ends an iteration when this has grown.
    count(logger, (LEARNER_RESULTS, ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), int(update["env_steps"]))


def flat(result: dict[str, Any]) -> dict[str, float]:
    """An iteration's result as names for MLflow: "rollout/success_rate", "learner/kl", "total/env_steps", ...

    "lag/0", "lag/1", ... are the shares of the update's decisions that were so many versions old.
    """
    runners, learners = result.get(ENV_RUNNER_RESULTS, {}), result.get(LEARNER_RESULTS, {})
    rollout = {
        "success_rate": "success_rate", "return": EPISODE_RETURN_MEAN, "episode_steps": EPISODE_LEN_MEAN,
        "mean_latent_steps": "mean_latent_steps", "policy_share": "policy_share", "simulator_share": "simulator_share",
        **{name: name for name in runners if name.startswith(TASK_SUCCESS)},
    }  # fmt: skip
    totals = {
        "env_steps": runners.get(NUM_ENV_STEPS_SAMPLED_LIFETIME), "episodes": runners.get(NUM_EPISODES_LIFETIME),
        "runner_restarts": runners.get(RUNNER_RESTARTS[1], 0), "learner_restarts": learners.get(LEARNER_RESTARTS[1], 0),
        "server_restarts": runners.get(SERVER_RESTARTS[1], 0), "decisions": runners.get(DECISIONS[1]),
        "simulator_failures": runners.get(SIMULATOR_FAILURES[1]), "updates_refused": learners.get(REFUSED[1], 0),
        **{key: runners.get(key) for _, key in (*SIMULATORS_RESTARTED.values(), EPISODES_ABORTED)},
        "tasks_quarantined": runners.get(TASKS_QUARANTINED[1], 0),
        "fragments_used": learners.get(USED[1]), "fragments_dropped": learners.get(DROPPED[1]),
        "decisions_used": learners.get(DECISIONS_USED[1]), "decisions_dropped": learners.get(DECISIONS_DROPPED[1], 0),
        "runners_released": runners.get(RELEASED[1], 0), "runners_asked_for": runners.get(ASKED_FOR[1], 0),
    }  # fmt: skip
    lags = {lag: 0.0 if math.isnan(seen) else float(seen) for lag, seen in learners.get(LAG, {}).items()}
    used = sum(lags.values())
    named = {
        **{f"rollout/{name}": runners.get(key) for name, key in rollout.items()},
        **{f"learner/{name}": value for name, value in learners.get(POLICY, {}).items()},
        **{f"total/{name}": value for name, value in totals.items()},
        "rollout/queue_decisions": learners.get(QUEUE[1]),
        **({f"lag/{lag}": seen / used for lag, seen in sorted(lags.items())} if used else {}),
        **{f"profile/{path}": seconds for path, seconds in result.get(PROFILE, {}).items()},
    }
    # RLlib reports NaN for what was not logged in an iteration.
    return {name: float(value) for name, value in named.items() if value is not None and not math.isnan(value)}
