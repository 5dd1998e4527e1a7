"""LIBERO's physics step to the last bit, without the work that stock robosuite repeats.

Stock robosuite runs MuJoCo's whole forward dynamics three times for each of the 25 physics steps of an environment
step: before the controller, inside it, and in the step proper. Positions and velocities are the same each time, so
kinematics, collisions, inertia and bias forces are computed once here. The constraint solver runs as often as before,
because its warm start, and so the last digits of every contact force, depends on it.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import types
from typing import Any

import mujoco
import numpy as np
from robosuite.controllers.base_controller import Controller
from robosuite.robots.single_arm import SingleArm

from avavla_ray.simulators.libero.environment import DecisionCameras


def solve_accelerations(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """mj_forward where position and velocity quantities are current."""
    mujoco.mj_fwdActuation(model, data)
    mujoco.mj_fwdAcceleration(model, data)
    mujoco.mj_fwdConstraint(model, data)


def update_controller(controller: Controller, force: bool = False) -> None:
    """`Controller.update` where position and velocity quantities are current; `force` computes them first."""
    model, data = controller.sim.model._model, controller.sim.data._data
    if force:
        mujoco.mj_forward(model, data)
    elif controller.new_update:
        solve_accelerations(model, data)
    else:
        return
    site = controller.sim.model.site_name2id(controller.eef_name)
    columns = controller.qvel_index
    position, rotation, mass = np.empty((3, model.nv)), np.empty((3, model.nv)), np.empty((model.nv, model.nv))
    mujoco.mj_jacSite(model, data, position, rotation, site)
    mujoco.mj_fullM(model, mass, data.qM)
    controller.ee_pos = data.site_xpos[site].copy()
    controller.ee_ori_mat = data.site_xmat[site].reshape(3, 3).copy()
    controller.ee_pos_vel = position @ data.qvel
    controller.ee_ori_vel = rotation @ data.qvel
    controller.joint_pos = data.qpos[controller.qpos_index]
    controller.joint_vel = data.qvel[columns]
    # Selecting columns this way gives the memory layout that stock has, and with it the rounding of later products.
    controller.J_pos = position[:, columns]
    controller.J_ori = rotation[:, columns]
    controller.J_full = np.vstack([controller.J_pos, controller.J_ori])
    controller.mass_matrix = mass[columns, :][:, columns]
    controller.new_update = False


class Arm:
    """What `SingleArm.control` does for the torques, without looking up names each time.

    The history of forces and velocities that robosuite keeps there is left out: LIBERO does not read it.
    """

    def __init__(self, robot: SingleArm) -> None:
        model = robot.sim.model
        self.robot, self.dimensions = robot, robot.controller.control_dim
        self.joints = robot._ref_joint_actuator_indexes
        self.fingers = [model.actuator_name2id(actuator) for actuator in robot.gripper.actuators]
        self.weakest, self.strongest = robot.torque_limits
        low, high = model.actuator_ctrlrange[self.fingers].T
        self.centre, self.reach = 0.5 * (high + low), 0.5 * (high - low)

    def drive(self, action: np.ndarray, new_goal: bool) -> None:
        """Set the torques and finger positions for the next physics step."""
        controller, control = self.robot.controller, self.robot.sim.data.ctrl
        if new_goal:
            controller.set_goal(action[: self.dimensions])
        control[self.joints] = np.clip(controller.run_controller(), self.weakest, self.strongest)
        fingers = self.robot.gripper.format_action(action[self.dimensions :])
        control[self.fingers] = self.centre + self.reach * fingers


class ExactSteps(DecisionCameras):
    """Mixed into a LIBERO problem class: steps to the state, and the observation, that stock LIBERO steps to."""

    def _reset_internal(self) -> None:
        super()._reset_internal()
        (robot,) = self.robots
        robot.controller.update = types.MethodType(update_controller, robot.controller)
        self._arm = Arm(robot)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, dict]:
        """Run one environment step of 50 ms.

        Args:
            action: (7,) in [-1, 1].

        Returns:
            observation, reward (1 on success), success, and an empty dictionary.
        """
        model, data = self.sim.model._model, self.sim.data._data
        self.timestep += 1
        for substep in range(int(self.control_timestep / self.model_timestep)):
            mujoco.mj_step1(model, data)
            solve_accelerations(model, data)
            self._arm.drive(action, new_goal=substep == 0)
            mujoco.mj_step2(model, data)
            self._update_observables()
        self.cur_time += self.control_timestep
        self._post_process()
        success = bool(self._check_success())
        return self._get_observations(), float(success), success, {}
