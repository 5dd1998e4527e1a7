"""What Prometheus reads from a real Ray node while a run shows itself."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest

from actors.gauges import RESTARTS, Gauges
from tests.support.dashboard import metrics

POINT = {
    "rollout/env_steps_per_s": 12.5, "rollout/decisions_per_s": 2.5, "rollout/success_rate": 0.75,
    "rollout/mean_latent_steps": 3.5, "rollout/queue_decisions": 96.0, "rollout/task_success/0": 0.5,
    "rollout/task_success/7": 1.0, "learner/version": 4.0, "learner/time_share": 0.4, "learner/kl": 0.01,
    "lag/0": 0.75, "lag/1": 0.125, "lag/6": 0.125,
    "total/env_steps": 1000.0, "total/decisions": 128.0, "total/decisions_used": 64.0, "total/episodes": 12.0,
    "total/updates": 3.0, "total/updates_refused": 1.0, "total/fragments_used": 9.0, "total/fragments_dropped": 2.0,
    "total/simulator_failures": 5.0, "total/runner_restarts": 4.0, "total/server_restarts": 3.0,
    "total/learner_restarts": 2.0,
}  # fmt: skip


def scraped(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Our metrics by (name, our tags) as the node exports them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("ray_avavla_"):
            name, tags, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
            pairs = re.findall(r'(\w+)="([^"]*)"', tags)
            found[name, tuple(sorted(pair for pair in pairs if pair[0] in ("run", "kind", "task", "le")))] = float(
                value
            )
    return found


@pytest.mark.ray
def test_everything_on_the_dashboard_is_exported_with_its_run(ray_cluster: dict[str, str]) -> None:
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    gauges = Gauges("first", {"total/env_steps": 400.0, "total/simulator_failures": 5.0})
    gauges.show(POINT)
    gauges.show({**POINT, "total/env_steps": 1500.0, "rollout/success_rate": 0.5})
    Gauges("second", {}).show(POINT)

    def complete() -> bool:
        found = scraped(port)
        return {name for name, _ in found} >= metrics() and all(
            found.get(("ray_avavla_env_steps_total", (("run", run),))) for run in ("first", "second")
        )

    end = time.monotonic() + 60
    while not complete():  # nodes collect every ten seconds
        assert time.monotonic() < end, metrics() - {name for name, _ in scraped(port)}
        time.sleep(1.0)
    found = scraped(port)
    first = {(name, *(value for key, value in tags if key != "run")): number for (name, tags), number in found.items()
             if ("run", "first") in tags}  # fmt: skip
    assert first["ray_avavla_success_rate",] == 0.5
    assert first["ray_avavla_env_steps_total",] == 1100.0  # what an earlier process has counted is not counted again
    assert first["ray_avavla_task_success_rate", "7"] == 1.0
    # One that has not died since the run was resumed has no line yet.
    assert {tags[1] for tags in first if tags[0] == "ray_avavla_restarts_total"} == {*RESTARTS.values()} - {"simulator"}
    assert [first["ray_avavla_lag_bucket", bound] for bound in ("0.5", "1.5", "4.5", "8.5", "+Inf")] == [
        48, 56, 56, 64, 64,
    ]  # fmt: skip
    assert found["ray_avavla_restarts_total", (("kind", "simulator"), ("run", "second"))] == 5.0
