"""Episodes whose instruction changes on the way: the chains of CALVIN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avavla_ray.simulators.base import ChunkResult, SimulatorConfig
from tests.support.fragments import lockstep, point_rollout
from tests.support.point_simulator import PointSimulator
from tests.support.policies import stirred_policy, tiny


class TwoTasks(PointSimulator):
    """Asks for something else, in the scene as it is, with its second chunk."""

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        result = super().run_chunk(actions, record=record)
        if self._steps <= len(actions):
            return result
        other = self.spec.instructions[1 - self._task]
        return replace(result, observation=replace(result.observation, instruction=other))


def test_the_belief_starts_anew_with_the_instruction() -> None:
    policy = stirred_policy(tiny(action_noise=0.1)).eval()

    def make(config: SimulatorConfig) -> TwoTasks:
        return TwoTasks(replace(config, max_steps=40))

    rollout = point_rollout(policy, make, simulators=2, train_actions=True)
    fragments, _ = lockstep(rollout, 12)
    changed = carried = 0
    for fragment in fragments:
        seen = fragment.seen
        first = np.concatenate([[True], (fragment.terminated | fragment.truncated)[:-1]])
        for t in range(len(fragment)):
            anew = not seen.hidden[t].any() and not seen.history[t].any()
            other = t > 0 and not first[t] and (seen.text[t] != seen.text[t - 1]).any()
            assert anew == (first[t] or other)
            changed, carried = changed + other, carried + (not anew)
    assert changed
    assert carried
