"""LIBERO's physics step without the work that stock robosuite repeats, to the last bit or to rounding.

Stock robosuite runs MuJoCo's whole forward dynamics three times for each of the 25 physics steps of an environment
step: before the controller, inside it, and in the step proper. Positions and velocities are the same each time, so
kinematics, collisions, inertia and bias forces are computed once here. The constraint solver is another matter. Only
its last run moves anything, but it starts where the run before stopped, and it stops as soon as it is close enough to
the answer: without the other two runs, a third of all work, contact forces differ in their last digits.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import mujoco
import numpy as np

from avavla_ray.simulators.libero.arm import Arm
from avavla_ray.simulators.libero.environment import DecisionCameras


class Steps(DecisionCameras):
    """Mixed into a LIBERO problem class: stock LIBERO's steps and the instants at which it observes.

    Attributes:
        exact: run the constraint solver as often as stock does. Otherwise joint angles stay equal to 1e-12 rad while
            the hand is free, and drift from stock by 1e-5 rad in 100 steps while it pushes against furniture.
    """

    exact = True

    def _reset_internal(self) -> None:
        super()._reset_internal()
        (robot,) = self.robots
        self._arm = Arm(robot)

    def follow_state(self) -> None:
        """Let the next step start from a state that was set after the reset, where the arm may be anywhere."""
        self._arm.follow_state()

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
            if self.exact:
                mujoco.mj_fwdActuation(model, data)
                mujoco.mj_fwdAcceleration(model, data)
                mujoco.mj_fwdConstraint(model, data)
            arm.look(warm_up=self.exact)
            if substep == 0:
                arm.aim(action)
            arm.drive()
            mujoco.mj_step2(model, data)
            self._update_observables()
        self.cur_time += self.control_timestep
        self._post_process()
        return bool(self._check_success())
