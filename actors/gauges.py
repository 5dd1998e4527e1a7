"""What a run shows while it runs: metrics of ray.util.metrics, which every Ray node exports for Prometheus.

cluster/grafana/avavla.json draws them. Only the driver sets them, after every update, each tagged with the run's name;
Prometheus knows them as "ray_" and the names below, counters with "_total" behind.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from actors.metrics import TASK_SUCCESS

RUN = "run"

# By what they are called in a point of the learning curve.
GAUGES = {
    "rollout/env_steps_per_s": ("avavla_env_steps_per_second", "Environment steps a second since the last update"),
    "rollout/decisions_per_s": ("avavla_decisions_per_second", "Decisions a second since the last update"),
    "rollout/success_rate": ("avavla_success_rate", "Share of successes among the last 100 episodes"),
    "rollout/mean_latent_steps": ("avavla_mean_latent_steps", "Latent steps a decision"),
    "rollout/queue_decisions": ("avavla_queue_decisions", "Decisions that wait to be learned from"),
    "learner/version": ("avavla_weights_version", "Version of the newest weights"),
    "learner/time_share": ("avavla_learner_busy_share", "Share of wall time in which the learner learns"),
    "learner/kl": ("avavla_update_kl", "KL divergence of the last update"),
}
COUNTERS = {
    "total/env_steps": ("avavla_env_steps", "Environment steps"),
    "total/decisions": ("avavla_decisions", "Decisions"),
    "total/episodes": ("avavla_episodes", "Episodes that ended"),
    "total/updates": ("avavla_updates", "Updates"),
    "total/updates_refused": ("avavla_updates_refused", "Updates that left the weights as they were"),
    "total/fragments_used": ("avavla_fragments_used", "Fragments learned from"),
    "total/fragments_dropped": ("avavla_fragments_dropped", "Fragments that were too old to learn from"),
}
RESTARTS = {
    "total/simulator_failures": "simulator", "total/runner_restarts": "runner", "total/server_restarts": "server",
    "total/learner_restarts": "learner",
}  # fmt: skip
LAGS = [0.5, 1.5, 2.5, 3.5, 4.5, 8.5, 16.5]  # versions; between whole numbers, so that each has a bucket


class Gauges:
    """Shows the points of one run's learning curve.

    Args:
        run: its name. begun: totals that an earlier process has shown already, where the run is resumed.
    """

    def __init__(self, run: str, begun: Mapping[str, float]) -> None:
        tags = {RUN: run}
        self._gauges = {key: Gauge(*named, tag_keys=(RUN,)) for key, named in GAUGES.items()}
        self._task_success = Gauge(
            "avavla_task_success_rate", "Share of successes among a task's last 20 episodes", tag_keys=(RUN, "task")
        )
        self._counters = {key: Counter(*named, tag_keys=(RUN,)) for key, named in COUNTERS.items()}
        self._restarts = Counter(
            "avavla_restarts", "Processes that died or hung and were replaced", tag_keys=(RUN, "kind")
        )
        self._lag = Histogram(
            "avavla_lag", "Decisions learned from, by versions between their weights and the learner's",
            boundaries=LAGS, tag_keys=(RUN,),
        )  # fmt: skip
        for metric in (*self._gauges.values(), self._task_success, *self._counters.values(), self._restarts, self._lag):
            metric.set_default_tags(tags)
        self._shown = dict(begun)

    def show(self, point: Mapping[str, float]) -> None:
        """Set everything to what it is after an update."""
        for key, gauge in self._gauges.items():
            if key in point:
                gauge.set(point[key])
        for key, rate in point.items():
            if key.startswith(f"rollout/{TASK_SUCCESS}"):
                self._task_success.set(rate, tags={"task": key.rpartition("/")[2]})
        for key, counter in self._counters.items():
            if more := self._more(key, point):
                counter.inc(more)
        for key, kind in RESTARTS.items():
            if more := self._more(key, point):
                self._restarts.inc(more, tags={"kind": kind})
        used = self._more("total/decisions_used", point)
        for key, share in point.items():
            if key.startswith("lag/"):
                lag = int(key.removeprefix("lag/"))
                for _ in range(round(share * used)):
                    self._lag.observe(lag)

    def _more(self, key: str, point: Mapping[str, float]) -> float:
        """How much a total has grown since it was shown last."""
        before, now = self._shown.get(key, 0.0), point.get(key)
        if now is None or now <= before:
            return 0.0
        self._shown[key] = now
        return now - before
