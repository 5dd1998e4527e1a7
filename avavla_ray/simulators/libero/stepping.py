"""LIBERO's physics step to the last bit, without the work that stock robosuite repeats.

Stock robosuite runs MuJoCo's whole forward dynamics three times for each of the 25 physics steps of an environment
step: before the controller, inside it, and in the step proper. Positions and velocities are the same each time, so
kinematics, collisions, inertia and bias forces are computed once here. The constraint solver runs as often as before,
because its warm start, and so the last digits of every contact force, depends on it.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import mujoco
import numpy as np

from avavla_ray.simulators.libero.arm import Arm
from avavla_ray.simulators.libero.environment import DecisionCameras


class ExactSteps(DecisionCameras):
    """Mixed into a LIBERO problem class: steps to the state, and the observation, that stock LIBERO steps to."""

    def _reset_internal(self) -> None:
        super()._reset_internal()
        (robot,) = self.robots
        self._arm = Arm(robot)

    def step(self, action: np.ndarray) -> bool:
        """Run one environment step of 50 ms; what was seen in it is in `sample`.

        Args:
            action: (7,) in [-1, 1].

        Returns:
            whether the task's goal holds.
        """
        model, data, arm = self.sim.model._model, self.sim.data._data, self._arm
        self.timestep += 1
        for substep in range(int(self.control_timestep / self.model_timestep)):
            mujoco.mj_step1(model, data)
            mujoco.mj_fwdActuation(model, data)
            mujoco.mj_fwdAcceleration(model, data)
            mujoco.mj_fwdConstraint(model, data)
            arm.look()
            if substep == 0:
                arm.aim(action)
            arm.drive()
            mujoco.mj_step2(model, data)
            self._update_observables()
        self.cur_time += self.control_timestep
        self._post_process()
        return bool(self._check_success())
