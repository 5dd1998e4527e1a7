"""Chains in the fake calvin_env, for processes that know nothing of it yet."""

from __future__ import annotations

import os
from functools import partial

from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.calvin.chains import IsolatedCalvin
from avavla_ray.simulators.calvin.initial_states import published_conditions
from avavla_ray.simulators.calvin.sequences import Sequence
from avavla_ray.simulators.isolated.faults import FaultPlan
from tests.support.fake_calvin import FAKE_ROOT, make_button_calvin

LED_CHAIN = Sequence(published_conditions()[96], ("turn_off_led", "turn_on_led", "open_drawer", "stack_block", "x"))


def make_isolated_button_calvin(plan: FaultPlan, config: SimulatorConfig) -> IsolatedCalvin:
    """A factory when its first argument is given."""
    os.environ["CALVIN_ENV_ROOT"] = str(FAKE_ROOT)
    return IsolatedCalvin(config, factory=partial(make_button_calvin, plan))
