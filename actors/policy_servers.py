"""The policy servers of a run, as the driver sees them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.exceptions import RayError

from actors.policy_server import PolicyServer
from actors.rooms import Room, server_room
from avavla_ray.policy.config import PolicyConfig

LOOK_EVERY_S = 2.0


@dataclass
class _Seen:
    """What is known of a server. up: it has decided since it was last started. since: it last answered, or died."""

    pid: int | None = None
    call: Any = None
    asked: float = float("-inf")
    up: bool = False
    since: float = field(default_factory=time.monotonic)


class PolicyServers:
    """Starts them, counts their restarts and ends those that hang; all else happens between runners and servers.

    A server that dies is started again by Ray, which notices a death in seconds. One that hangs is ended by the runner
    that has waited `server_timeout_s` for an answer; or from here, where it doesn't even say how it is for so long, or
    for `runner_timeout_s` while it starts. Either way the runners ask again, and no episode is lost.

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
        self._room: Room | None = None
        self._timeout_s, self._start_s = config.server_timeout_s, config.runner_timeout_s
        if config.policy_placement == "server":
            self._room = server_room(config)  # where it isn't there yet, the servers wait for it
            self.handles = [
                ray.remote(max_restarts=-1, **self._room.options(index))(PolicyServer).remote(
                    policy, batch=config.server_batch, exit_threshold=config.exit_threshold,
                    threads=max(1, int(config.num_cpus_per_server)), profile=config.profile,
                    precision=config.rollout_precision,
                )
                for index in range(config.num_policy_servers)
            ]  # fmt: skip
        self._seen = [_Seen() for _ in self.handles]
        self._looked = time.monotonic()
        self.timings = Counter[str]()

    def restarts(self) -> int:
        """Servers that have come back since the last call. Returns at once.

        Raises:
            ActorDiedError: a server can't be made; it says why.
        """
        back, now = 0, time.monotonic()
        away, self._looked = now - self._looked, now
        for number, (handle, seen) in enumerate(zip(self.handles, self._seen, strict=True)):
            if away > LOOK_EVERY_S:  # nobody listened
                seen.since += away
            if seen.call is not None and ray.wait([seen.call], timeout=0)[0]:
                call, seen.call = seen.call, None
                try:
                    told = ray.get(call)
                except RayError:
                    if handle._get_local_state() == gcs_pb2.ActorTableData.DEAD:  # for good
                        raise
                    if seen.up:  # it is on its way back
                        seen.up, seen.since = False, now
                else:
                    back += seen.pid not in (None, told["pid"])
                    seen.pid, seen.up, seen.since = told["pid"], told["batches"] > 0, now
                    self.timings.update(told["timings"])
            if now - seen.since > (self._timeout_s if seen.up else self._start_s):
                print(f"policy server {number} has hung for {now - seen.since:.0f} s: it is started again", flush=True)
                ray.kill(handle, no_restart=False)
                seen.up, seen.since, seen.call = False, now, None
            if seen.call is None and now - seen.asked > LOOK_EVERY_S:
                seen.call, seen.asked = handle.statistics.remote(), now
        return back

    def stop(self) -> None:
        for handle in self.handles:
            ray.kill(handle)
        self.handles, self._seen = [], []
        if self._room is not None:
            self._room.leave()
            self._room = None
