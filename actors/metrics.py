"""What asynchronous PPO reports of itself, in RLlib's MetricsLogger and as flat names for MLflow."""

from __future__ import annotations

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

from actors.rollout import Report

EPISODE_WINDOW = 100
POLICY = "policy"
RUNNER_RESTARTS = (ENV_RUNNER_RESULTS, "restarts")
SIMULATOR_FAILURES = (ENV_RUNNER_RESULTS, "simulator_failures")
USED, DROPPED = (LEARNER_RESULTS, "fragments_used"), (LEARNER_RESULTS, "fragments_dropped")
REFUSED, LEARNER_RESTARTS = (LEARNER_RESULTS, "updates_refused"), (LEARNER_RESULTS, "restarts")


def count(logger: MetricsLogger, key: tuple[str, ...], amount: int = 1) -> None:
    """Add to a total over the whole run."""
    logger.log_value(key, amount, reduce="lifetime_sum")


def log_rollout(logger: MetricsLogger, report: Report) -> None:
    """One runner's report: episodes over a window, latent steps and times, steps with their rate."""

    def log(name: str, value: float, window: int) -> None:
        logger.log_value((ENV_RUNNER_RESULTS, name), value, window=window)

    for episode, task_return in zip(report.finished, report.returns, strict=True):
        log("success_rate", float(episode.success), EPISODE_WINDOW)
        log(EPISODE_RETURN_MEAN, task_return, EPISODE_WINDOW)
        log(EPISODE_LEN_MEAN, episode.steps, EPISODE_WINDOW)
    if report.decisions:
        log("mean_latent_steps", report.latent_steps / report.decisions, 20)
    log("policy_share", report.policy_seconds / report.seconds, 20)
    log("simulator_share", report.simulator_seconds / report.seconds, 20)
    count(logger, (ENV_RUNNER_RESULTS, NUM_EPISODES_LIFETIME), len(report.finished))
    count(logger, SIMULATOR_FAILURES, report.failures)
    logger.log_value(
        (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), report.env_steps,
        reduce="lifetime_sum", with_throughput=True,
    )  # fmt: skip


def log_update(logger: MetricsLogger, update: dict[str, float], version: int, time_share: float) -> None:
    """One update: losses and diagnostics as they are, and the learner's share of the wall time so far."""
    for name, value in {**update, "version": version, "time_share": time_share}.items():
        logger.log_value((LEARNER_RESULTS, POLICY, name), value, window=1)
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
        "fragments_used": learners.get(USED[1]), "fragments_dropped": learners.get(DROPPED[1]),
    }  # fmt: skip
    named = {
        **{f"rollout/{name}": runners.get(key) for name, key in rollout.items()},
        **{f"learner/{name}": value for name, value in learners.get(POLICY, {}).items()},
        **{f"total/{name}": value for name, value in totals.items()},
    }
    return {name: float(value) for name, value in named.items() if value is not None}
