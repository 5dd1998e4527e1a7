"""A tiny policy whose value head knows something of the table-top: fitted to returns of episodes that it played."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from avavla_ray.policy.agent import Agent
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.training.gate_decisions import Start, play_for_states
from tests.support.policies import some_statistics, stirred_policy, tiny

DISCOUNT = 0.9  # of a decision


class Watched(TabletopSimulator):
    """Notes how high the hand is at each decision, which serves as the reward: nobody succeeds untrained."""

    def __init__(self, config: SimulatorConfig) -> None:
        super().__init__(config)
        self.heights: list[float] = []

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        self.heights = []
        return super().reset(task, initial_state=initial_state, seed=seed)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        result = super().run_chunk(actions, record=record)
        self.heights.append(float(result.observation.proprio[2]))
        return result


def valued_policy(tasks: tuple[int, ...], episodes: int, max_steps: int, **changes: object) -> AvaVlaPolicy:
    """Play so many episodes of each task, of so many environment steps, and fit the value of every latent state to the
    discounted heights that follow it, normalised. Its loop is stirred more than the rest, or all decisions would think
    alike and there would be nothing for a gate to tell apart."""
    policy = stirred_policy(tiny(**changes), seed=1).eval()
    assert policy.loop is not None
    with torch.no_grad():
        for parameter in (*policy.loop.parameters(), *policy.encoder.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    agent = Agent(policy, some_statistics())
    simulator = Watched(SimulatorConfig(suite="tabletop", image_size=32, max_steps=max_steps))
    states, returns = [], []
    for task in tasks:
        for number in range(episodes):
            played = play_for_states(simulator, agent, Start(task, number), seed=1000, exit_threshold=None)
            after = 0.0
            for height, decision in zip(simulator.heights[::-1], played.states[::-1], strict=True):
                after = height + DISCOUNT * after
                states.append(decision)
                returns.append(after)
    simulator.close()
    z, wanted = torch.from_numpy(np.stack(states)), torch.tensor(returns)
    wanted = ((wanted - wanted.mean()) / wanted.std())[:, None].expand(z.shape[:2])
    optimizer = torch.optim.Adam(policy.value_head.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        F.mse_loss(policy.value(z), wanted).backward()
        optimizer.step()
    return policy
