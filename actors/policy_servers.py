"""The policy servers of a run, as the driver sees them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from actors.bundles import server_bundle
from actors.policy_server import PolicyServer
from avavla_ray.policy.config import PolicyConfig

LOOK_EVERY_S = 2.0


@dataclass
class _Seen:
    pid: int | None = None
    call: Any = None
    asked: float = float("-inf")


class PolicyServers:
    """Starts them and counts their restarts; everything else happens between runners and servers.

    A server that dies is started again by Ray, which notices a death in seconds. One that hangs is ended by the runner
    that has waited `server_timeout_s` for an answer. Either way the runners ask again, and no episode is lost.

    Attributes:
        handles: for the runners; none where each has a copy of the policy.
        timings: seconds by path since somebody emptied it, of all servers that are profiled.
    """

    def __init__(self, config: Any, policy: PolicyConfig) -> None:
        """
        Args:
            config: an `AsyncPPOConfig`. policy: what the servers answer with.
        """
        self.handles: list[Any] = []
        if config.policy_placement == "server":
            own = {"num_cpus": config.num_cpus_per_server, "num_gpus": config.num_gpus_per_server, "max_restarts": -1}
            self.handles = [
                ray.remote(**own, **server_bundle(config, index))(PolicyServer).remote(
                    policy, batch=config.server_batch, exit_threshold=config.exit_threshold,
                    threads=max(1, int(config.num_cpus_per_server)), profile=config.profile,
                    precision=config.rollout_precision,
                )
                for index in range(config.num_policy_servers)
            ]  # fmt: skip
        self._seen = [_Seen() for _ in self.handles]
        self.timings = Counter[str]()

    def restarts(self) -> int:
        """Servers that have come back since the last call. Returns at once."""
        back, now = 0, time.monotonic()
        for handle, seen in zip(self.handles, self._seen, strict=True):
            if seen.call is not None and ray.wait([seen.call], timeout=0)[0]:
                try:
                    told = ray.get(seen.call)
                except RayError:
                    pid = seen.pid  # it is on its way back
                else:
                    pid = told["pid"]
                    self.timings.update(told["timings"])
                back += seen.pid not in (None, pid)
                seen.pid, seen.call = pid, None
            if seen.call is None and now - seen.asked > LOOK_EVERY_S:
                seen.call, seen.asked = handle.statistics.remote(), now
        return back

    def stop(self) -> None:
        for handle in self.handles:
            ray.kill(handle)
        self.handles, self._seen = [], []
