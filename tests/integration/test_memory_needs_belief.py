"""tabletop_memory: a policy learns to carry the lamp's colour into the dark, and it carries it in its belief alone.

Whoever has forgotten the colour is right once in three times. Two policies are cloned from the same demonstrations, in
the same order and from the same weights, which have learned the first decision, in sight of the lamp. One of them hands
on its belief, the other (`recurrent` off) does not.

Shown is that memory is learned and that nothing else tells. Not shown is a policy that solves the suite: in two minutes
it learns which block is meant better than where exactly that lies, and about half of its episodes end beside the block.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avavla_ray.evaluation.intervals import wilson
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.tabletop.tasks import COLOURS
from tests.support.learning import Played, clone, learner_config, learner_policy, success_rate
from tests.support.learning import play as play_episodes
from tests.support.tabletop_learning import Windows, demonstrated_windows, nearest_block

pytestmark = pytest.mark.timeout(1800)

SEED, RATE, NOISE = 0, 1.5e-3, 0.2
SIMULATOR = SimulatorConfig(suite="tabletop_memory", image_size=32, settle_steps=0)
# Weights of the visual tokens are trained at one temperature from beginning to end, in a few hundred steps.
CONFIG = learner_config(attention__temperature=1.0)
STARTS = range(100_000, 100_200)
DECISIONS = 4  # as many as the expert takes
STATES = [(task, state) for state in range(40) for task in range(len(COLOURS))]


@pytest.fixture(scope="module")
def windows() -> Windows:
    return demonstrated_windows(SIMULATOR, CONFIG, STARTS, DECISIONS)


@pytest.fixture(scope="module")
def begun(windows: Windows) -> AvaVlaPolicy:
    """It has learned what to do in sight of the lamp."""
    policy = learner_policy(CONFIG, SEED)
    batches = windows.drawn(48, 1, proprio_noise=NOISE, seed=SEED)
    clone(policy, batches, 1000, rate=RATE, latent_steps=0, seed=SEED)
    return policy


def gone_on(begun: AvaVlaPolicy, config: PolicyConfig, windows: Windows) -> AvaVlaPolicy:
    policy = learner_policy(config, SEED)
    policy.load_state_dict(begun.state_dict())
    batches = windows.drawn(32, DECISIONS, proprio_noise=NOISE, seed=SEED)
    clone(policy, batches, 250, rate=RATE, latent_steps=0, seed=SEED)
    return policy


def play(policy: AvaVlaPolicy, windows: Windows, *, forget: bool = False) -> list[Played]:
    """After three decisions, when a hand is over a block but has hardly reached any, it says which."""
    return play_episodes(
        policy, windows.statistics, SIMULATOR, STATES, depth=0, forget=forget, look=nearest_block
    )  # fmt: skip


def chosen_rightly(played: list[Played]) -> float:
    return float(np.mean([each.chosen == COLOURS[each.task] for each in played]))


def test_only_the_belief_tells_which_block(windows: Windows, begun: AvaVlaPolicy) -> None:
    with_belief = gone_on(begun, CONFIG, windows)
    without_belief = gone_on(begun, replace(CONFIG, recurrent=False), windows)
    remembering, forgetting = play(with_belief, windows), play(with_belief, windows, forget=True)
    without = play(without_belief, windows)
    for name, played in (("belief", remembering), ("belief zeroed", forgetting), ("no belief", without)):
        print(f"{name}: success {success_rate(played):.2f}, choice {chosen_rightly(played):.2f} of {len(played)}")
    assert chosen_rightly(remembering) > 0.7
    for other in (forgetting, without):
        assert chosen_rightly(other) < 0.5
        assert _interval(remembering)[0] > _interval(other)[1]


def _interval(played: list[Played]) -> tuple[float, float]:
    """Of 95 %, of the success rate."""
    return wilson(sum(each.success for each in played), len(played))
