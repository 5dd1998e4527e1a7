"""One task of real LIBERO is learned from the scripted expert's demonstrations in two minutes of one core.

Whatever breaks learning without breaking a run (units, the order of cameras, cloned noise, a gripper that closes too
late) shows here, at the end. Everything happens in this process and drawn from one seed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from avavla_ray.simulators.base import SimulatorConfig
from tests.support.learning import (
    clone,
    learner_config,
    learner_policy,
    play,
    record_demonstrations,
    success_rate,
    walked,
)

pytestmark = [pytest.mark.libero, pytest.mark.timeout(900)]

TASK, SEED = 6, 0  # "pick up the butter and place it in the basket"
DEMONSTRATIONS, NOISE = 30, 0.2
SIMULATOR = SimulatorConfig(suite="libero_object", tasks=(TASK,), image_size=64)
CONFIG = learner_config(backbone__image_size=SIMULATOR.image_size, backbone__stem_channels=(16, 32, 64))
STEPS, STREAMS, RATE = 800, 64, 2e-3
STARTS = [(TASK, state) for state in range(20)]
GOOD_ENOUGH = 0.7  # 0.95 when it was written


def test_a_task_is_learned(tmp_path: Path) -> None:
    statistics = record_demonstrations(tmp_path, SIMULATOR, (TASK,), DEMONSTRATIONS, noise=NOISE)
    policy = learner_policy(CONFIG, SEED)
    clone(policy, walked(tmp_path, policy, streams=STREAMS, seed=SEED), STEPS, rate=RATE, latent_steps=0, seed=SEED)
    played = play(policy, statistics, SIMULATOR, STARTS, depth=0, simulators=4)
    print(f"success {success_rate(played):.2f} of {len(played)}")
    assert success_rate(played) >= GOOD_ENOUGH
