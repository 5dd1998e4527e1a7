"""Fragments with drawn chunks and exits, made by plain loops: what a rollout has to deliver, with none of its code."""

from __future__ import annotations

import numpy as np
import torch

from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import EpisodeSummary, SimulatorConfig
from tests.support.point_simulator import PointSimulator, point_statistics


def drawn_fragments(
    policy: AvaVlaPolicy, *, exits: bool, fragments: int = 3, decisions: int = 9, group_size: int = 0, seed: int = 0
) -> list[Fragment]:
    """So many fragments of so many decisions; with groups, each one group of whole episodes from one start."""
    agent, generator = Agent(policy, point_statistics()), torch.Generator().manual_seed(seed)
    made = []
    for number in range(fragments):
        simulator = PointSimulator(SimulatorConfig(suite="point", image_size=32))
        rows, episodes, drawn, done = [], 0, 0, True
        while episodes < group_size or not done if group_size else len(rows) < decisions:
            if done:
                start = number if group_size else 100 * number + episodes
                observation, belief = simulator.reset(number % 2, seed=start), policy.initial_belief(1)
                episodes, taken = episodes + 1, 0
            inputs = agent.inputs([observation])
            decision = policy.decide(inputs, belief, draws=policy.draws(1, generator, actions=True, exits=exits))
            result = simulator.run_chunk(agent.actions(decision.chunk)[0])
            rows.append((inputs, belief, decision, result, episodes - 1, taken))
            taken += 1
            observation, belief, done = result.observation, decision.belief, result.done
            drawn += 1
        made.append(_fragment(policy, agent, rows, group=0 if group_size else -1))
    return made


def _fragment(policy: AvaVlaPolicy, agent: Agent, rows: list, group: int) -> Fragment:
    def column(get, kind=np.float32) -> np.ndarray:
        return np.stack([np.asarray(get(*row), kind) for row in rows])

    def trace(name: str, kind=np.float32) -> np.ndarray:
        return column(lambda i, b, d, r, e, n: getattr(d.trace, name)[0].numpy(), kind)

    following = []
    for _, _, decision, result, *_ in rows:
        inputs = agent.inputs([result.observation])
        z0 = policy.initial_latent(inputs, decision.belief)[1][0].numpy()
        following.append(np.zeros_like(z0) if result.success else z0)
    return Fragment(
        **{name: trace(name) for name in ("z", "u", "log_prob", "entropy", "exit_score", "exit_log_prob")},
        steps=trace("steps", np.int64),
        encoding=column(lambda i, b, d, r, e, n: d.context.encoding[0]),
        tokens=column(lambda i, b, d, r, e, n: d.context.tokens[0]),
        reward=column(lambda i, b, d, r, e, n: r.reward),
        duration=column(lambda i, b, d, r, e, n: r.duration, np.int64),
        terminated=column(lambda i, b, d, r, e, n: r.success, bool),
        truncated=column(lambda i, b, d, r, e, n: r.truncated, bool),
        next_z=np.stack(following), version=column(lambda *_: 0, np.int64), task=column(lambda *_: 0, np.int64),
        group=column(lambda *_: group, np.int64), episode=column(lambda i, b, d, r, e, n: e, np.int64),
        decision=column(lambda i, b, d, r, e, n: n, np.int64),
        seen=Seen(
            images=column(lambda i, b, d, r, e, n: i.images[0], np.uint8),
            text=column(lambda i, b, d, r, e, n: i.text[0], np.int64),
            proprio=column(lambda i, b, d, r, e, n: i.proprio[0]),
            hidden=column(lambda i, b, d, r, e, n: b.hidden[0]), history=column(lambda i, b, d, r, e, n: b.history[0]),
            chunk=column(lambda i, b, d, r, e, n: d.chunk[0]),
            action_log_prob=column(lambda i, b, d, r, e, n: d.action_log_prob[0]),
        ),
        episode_ids=[f"episode-{e}" for e in range(1 + max(row[4] for row in rows))],
        finished=[
            EpisodeSummary(f"episode-{e}", 0, None, 0, r.success, n + 1, n + 1, 1.0)
            for _, _, _, r, e, n in rows if r.success or r.truncated
        ],
    )  # fmt: skip
