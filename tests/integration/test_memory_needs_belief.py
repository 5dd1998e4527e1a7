"""tabletop_memory: a policy learns to carry the lamp's colour into the dark, and it carries it in its belief alone.

Whoever has forgotten the colour is right once in three times. A policy that has learned the first decision, in sight of
the lamp, goes on from the same demonstrations: handing on its belief, and in a long test without (`recurrent` off).

Shown is that memory is learned and that nothing else tells. Not shown is a policy that solves the suite: in a minute
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
    clone(policy, batches, 600, rate=RATE, latent_steps=0, seed=SEED)
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


@pytest.fixture(scope="module")
def remembering(begun: AvaVlaPolicy, windows: Windows) -> tuple[AvaVlaPolicy, list[Played]]:
    policy = gone_on(begun, CONFIG, windows)
    return policy, play(policy, windows)


def test_only_the_belief_tells_which_block(remembering: tuple[AvaVlaPolicy, list[Played]], windows: Windows) -> None:
    policy, with_belief = remembering
    assert chosen_rightly(with_belief) > 0.6
    _check_worse(play(policy, windows, forget=True), with_belief)


@pytest.mark.long
def test_whoever_learns_without_belief_guesses(
    remembering: tuple[AvaVlaPolicy, list[Played]], begun: AvaVlaPolicy, windows: Windows
) -> None:
    _check_worse(play(gone_on(begun, replace(CONFIG, recurrent=False), windows), windows), remembering[1])


def _check_worse(without: list[Played], with_belief: list[Played]) -> None:
    for name, played in (("belief", with_belief), ("none", without)):
        print(f"{name}: success {success_rate(played):.2f}, choice {chosen_rightly(played):.2f} of {len(played)}")
    assert chosen_rightly(without) < 0.5
    assert _interval(with_belief)[0] > _interval(without)[1]


def _interval(played: list[Played]) -> tuple[float, float]:
    """Of 95 %, of the success rate."""
    return wilson(sum(each.success for each in played), len(played))
