"""Other numbers of runners and simulators, lockstep and double buffering, copies of the policy and a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from actors.policy_server import start_policy_servers
from actors.weights import WeightHandle
from benchmarks.rollout_cost.fleet import Rate, start_fleet, stop_fleet


@dataclass(frozen=True)
class Variant:
    """A way to lay out the rollout, and what it reached.

    Attributes:
        runners; simulators: of each; buffers: see `AsyncPPOConfig`. placement: "copy" or "server".
    """

    runners: int
    simulators: int
    buffers: int
    placement: str
    only: Rate
    rollout: Rate

    @property
    def name(self) -> str:
        return f"{self.placement}_{self.runners}x{self.simulators}_buffers_{self.buffers}"

    @property
    def share(self) -> float:
        return self.rollout.mean / self.only.mean

    @property
    def cpu_share(self) -> float:
        return self.only.cpu_ms / self.rollout.cpu_ms

    def flat(self) -> dict[str, float]:
        return {
            f"{self.name}.share_of_simulator_only": self.share,
            f"{self.name}.cpu_share_of_simulator_only": self.cpu_share,
            f"{self.name}.decisions_per_s": self.rollout.mean,
        }


def layouts(runners: int, simulators: int) -> list[tuple[int, int, int, str]]:
    """(runners, simulators, buffers, placement), from one runner with few simulators to the machine's."""
    few = max(1, simulators // 4)
    chosen = [
        (1, simulators, 1, "copy"), (1, simulators, 2, "copy"), (1, 2 * simulators, 2, "copy"),
        *((runners, each, buffers, "copy") for each in (few, 2 * few, simulators) for buffers in (1, 2)),
        (runners, simulators, 1, "server"), (runners, simulators, 2, "server"),
    ]  # fmt: skip
    return list(dict.fromkeys(chosen))


def measure_variants(config: Any, group: Any, weights: WeightHandle, settings: Any) -> list[Variant]:
    """Every layout with a fleet of its own, half of the rounds in turns with its own simulators alone.

    Args:
        config: an `AsyncPPOConfig`. group: its learner group. settings: of the benchmark.
    """
    found = []
    for runners, simulators, buffers, placement in layouts(settings.num_runners, settings.simulators):
        chosen = config.copy(copy_frozen=False).env_runners(
            num_env_runners=runners, num_envs_per_env_runner=simulators
        ).training(buffers=buffers)  # fmt: skip
        servers = start_policy_servers(1, group.policy_config, batch=64) if placement == "server" else []
        fleet = start_fleet(chosen, group, weights, servers)
        variant = Variant(runners, simulators, buffers, placement, Rate(), Rate())
        for _ in range(max(2, settings.rounds // 2)):
            fleet.simulator_only(settings.seconds, variant.only)
            fleet.rollout(settings.seconds, variant.rollout)
        stop_fleet(fleet)
        for server in servers:
            ray.kill(server)
        print(f"{variant.name}: {variant.share:.2f} of its simulators alone", flush=True)
        found.append(variant)
    return found


def table(variants: Sequence[Variant]) -> str:
    """As Markdown."""
    head = (
        "runners", "simulators each", "buffers", "policy", "simulators alone, decisions/s", "rollout, decisions/s",
        "share", "share of processor time",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for v in variants:
        lines.append(
            f"| {v.runners} | {v.simulators} | {v.buffers} | {v.placement} | {v.only.mean:.1f} "
            f"| {v.rollout.mean:.1f} | {v.share:.2f} | {v.cpu_share:.2f} |"
        )
    return "\n".join(lines) + "\n"
