"""robosuite's operational space controller to the last bit, without its Python between the numbers.

Stock robosuite spends more time in interpreted code around a torque than MuJoCo spends on the physics step that the
torque is for. Here all elementwise arithmetic is compiled, in the order in which robosuite writes it; products of
matrices go through the library that robosuite takes them from (numpy's for products that it writes in plain Python,
numba's for those it compiles), with arrays of the same memory layout, because layout and library decide the rounding.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import mujoco
import numba
import numpy as np
from robosuite.controllers.osc import OperationalSpaceController
from robosuite.models.grippers.panda_gripper import PandaGripper
from robosuite.robots.single_arm import SingleArm
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error


@numba.njit(cache=True)
def dynamics(
    translation: np.ndarray,
    rotation: np.ndarray,
    inertia: np.ndarray,
    inertia_start: np.ndarray,
    parent: np.ndarray,
    columns: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """What the controller wants to know of the arm, in the memory layout that robosuite has it in.

    Args:
        translation, rotation: (3, nv) Jacobian of the hand's site.
        inertia, inertia_start, parent: MuJoCo's sparse joint-space inertia: qM, dof_Madr and dof_parentid.
        columns: (J,) velocity indices of the arm's joints.

    Returns:
        two (3, J) Jacobians, the (6, J) one of both, and the (J, J) mass matrix, all column-major.
    """
    count = len(columns)
    linear, angular = np.empty((count, 3)).T, np.empty((count, 3)).T
    both, mass = np.empty((count, 6)).T, np.zeros((count, count)).T
    for i in range(count):
        for axis in range(3):
            linear[axis, i] = both[axis, i] = translation[axis, columns[i]]
            angular[axis, i] = both[axis + 3, i] = rotation[axis, columns[i]]
        address, ancestor = inertia_start[columns[i]], columns[i]
        while ancestor >= 0:
            for j in range(count):
                if columns[j] == ancestor:
                    mass[i, j] = mass[j, i] = inertia[address]
            address, ancestor = address + 1, parent[ancestor]
    return linear, angular, both, mass


@numba.njit(cache=True)
def operational_space(
    jacobians: tuple[np.ndarray, ...],
    hand: tuple[np.ndarray, ...],
    goal: tuple[np.ndarray, ...],
    joints: tuple[np.ndarray, ...],
    columns: tuple[np.ndarray, ...],
    gains: tuple[np.ndarray, ...],
) -> tuple[np.ndarray, ...]:
    """Everything of the control law up to the products that robosuite leaves to numpy.

    Args:
        jacobians: what `dynamics` returns.
        hand: position (3,), rotation matrix (9,), linear and angular velocity (3,) of the hand's site.
        goal: position (3,), rotation matrix (3, 3), and joint angles (J,) of the arm at rest.
        joints: qpos (nq,) and qvel (nv,). columns: the arm's indices in each.
        gains: stiffness (6,) and damping (6,).

    Returns:
        inertia of the hand in translation and in rotation (3, 3), the force and torque (3,) wanted before they are
        scaled with it, and the torques (J,) that pull the elbow back without moving the hand.
    """
    linear, angular, both, mass = jacobians
    position, matrix, velocity, spin = hand
    stiffness, damping = gains
    turn = orientation_error(goal[1], matrix.reshape(3, 3))
    force, torque = np.empty(3), np.empty(3)
    for i in range(3):
        force[i] = (goal[0][i] - position[i]) * stiffness[i] + -velocity[i] * damping[i]
        torque[i] = turn[i] * stiffness[i + 3] + -spin[i] * damping[i + 3]
    _, inertia_linear, inertia_angular, nullspace = opspace_matrices(mass, both, linear, angular)
    at_rest = nullspace_torques(mass, nullspace, goal[2], joints[0][columns[0]], joints[1][columns[1]])
    return inertia_linear, inertia_angular, force, torque, at_rest


@numba.njit(cache=True)
def actuate(
    control: np.ndarray,
    torques: np.ndarray,
    bias: np.ndarray,
    at_rest: np.ndarray,
    columns: np.ndarray,
    arm: tuple[np.ndarray, ...],
    fingers: tuple[np.ndarray, ...],
    closing: np.ndarray,
    speed: float,
    gripped: np.ndarray,
) -> None:
    """Write the next physics step's arm torques and finger positions into `control` (nu,).

    Args:
        torques: (J,) of the control law. bias: (nv,) gravity and Coriolis forces. at_rest: (J,) elbow torques.
        columns: (J,) velocity indices of the arm's joints.
        arm: actuator indices (J,), lower and upper limits (J,).
        fingers: actuator indices (2,), middle and half of their range (2,).
        closing: (2,) the way that each finger moves, -1, 0 or 1, and `speed` by how much in one physics step.
        gripped: (2,) where the fingers are sent, each in [-1, 1]; moved on in place.
    """
    actuators, weakest, strongest = arm
    for i in range(len(columns)):
        wanted = torques[i] + bias[columns[i]] + at_rest[i]
        control[actuators[i]] = min(max(wanted, weakest[i]), strongest[i])
    actuators, centre, reach = fingers
    for i in range(2):
        gripped[i] = min(max(gripped[i] + closing[i] * speed, -1.0), 1.0)
        control[actuators[i]] = centre[i] + reach[i] * gripped[i]


class Arm:
    """What robosuite's `SingleArm.control` does to MuJoCo's controls, for a Panda under OSC_POSE.

    It holds views of MuJoCo's arrays: make another after robosuite made another controller. The history of forces and
    velocities that robosuite keeps in `control` is left out: LIBERO does not read it.
    """

    def __init__(self, robot: SingleArm) -> None:
        controller, gripper = robot.controller, robot.gripper
        assert isinstance(controller, OperationalSpaceController)
        assert isinstance(gripper, PandaGripper)
        assert controller.uncoupling
        assert controller.interpolator_pos is controller.interpolator_ori is None
        model, data = robot.sim.model._model, robot.sim.data._data
        self._model, self._data, self._controller, self._gripper = model, data, controller, gripper
        self._dimensions, self._speed = controller.control_dim, float(gripper.speed)
        self._site = robot.sim.model.site_name2id(controller.eef_name)
        self._columns = np.array(controller.qvel_index)
        self._translation, self._rotation = np.empty((3, model.nv)), np.empty((3, model.nv))
        self._velocity, self._spin = np.empty(3), np.empty(3)
        self._inertia = data.qM, model.dof_Madr, model.dof_parentid
        self._bias, self._control, self._qvel = data.qfrc_bias, data.ctrl, data.qvel
        weakest, strongest = robot.torque_limits
        self._arm = np.array(robot._ref_joint_actuator_indexes), np.array(weakest), np.array(strongest)
        fingers = np.array([robot.sim.model.actuator_name2id(actuator) for actuator in gripper.actuators])
        low, high = model.actuator_ctrlrange[fingers].T
        self._fingers = fingers, 0.5 * (high + low), 0.5 * (high - low)
        self._wrench, self._torques = np.empty(6), np.empty(len(self._columns))
        hand = data.site_xpos[self._site], data.site_xmat[self._site], self._velocity, self._spin
        self._live = hand, (data.qpos, data.qvel), (np.array(controller.qpos_index), self._columns)
        # What the controller learned while it was made; the first physics step goes by it.
        self._stale = True
        self._hand = controller.ee_pos, controller.ee_ori_mat.ravel(), controller.ee_pos_vel, controller.ee_ori_vel
        known = controller.J_pos, controller.J_ori, controller.J_full, controller.mass_matrix
        self._jacobians: tuple[np.ndarray, ...] = known
        self._joints, self._indices = (controller.joint_pos, controller.joint_vel), (np.arange(len(self._columns)),) * 2

    def follow_state(self) -> None:
        """A state was set from outside: the next `look` goes by it, not by what the controller saw when it was made."""
        self._stale = False

    def look(self, warm_up: bool) -> None:
        """What `Controller.update` does, where position and velocity quantities are current.

        robosuite runs the forward dynamics there once more; of that only the constraint solver matters, which starts
        from its last solution: `warm_up` runs it. For the first physics step after a reset robosuite leaves all out.
        """
        if self._stale:
            self._stale = False
            return
        model, data = self._model, self._data
        if warm_up:
            mujoco.mj_fwdConstraint(model, data)
        mujoco.mj_jacSite(model, data, self._translation, self._rotation, self._site)
        np.dot(self._translation, self._qvel, out=self._velocity)
        np.dot(self._rotation, self._qvel, out=self._spin)
        self._jacobians = dynamics(self._translation, self._rotation, *self._inertia, self._columns)
        self._hand, self._joints, self._indices = self._live

    def aim(self, action: np.ndarray) -> None:
        """Take the goal for the following physics steps from `action` (7,)."""
        controller, (position, matrix, _, _) = self._controller, self._hand
        controller.ee_pos, controller.ee_ori_mat = position.copy(), matrix.reshape(3, 3).copy()
        # Otherwise set_goal would run MuJoCo's forward dynamics once more, to learn the pose that it has just got.
        controller.new_update = False
        controller.set_goal(action[: self._dimensions])
        self._goal = controller.goal_pos, controller.goal_ori, controller.initial_joint
        self._gains = controller.kp, controller.kd
        self._closing = np.array([-1.0, 1.0]) * np.sign(action[self._dimensions :])
        # One number for both fingers after a reset.
        self._gripped = np.broadcast_to(self._gripper.current_action, 2).astype(float)
        self._gripper.current_action = self._gripped

    def drive(self) -> None:
        """Set torques and finger positions for the next physics step."""
        linear, angular, force, torque, at_rest = operational_space(
            self._jacobians, self._hand, self._goal, self._joints, self._indices, self._gains
        )
        np.dot(linear, force, out=self._wrench[:3])
        np.dot(angular, torque, out=self._wrench[3:])
        np.dot(self._jacobians[2].T, self._wrench, out=self._torques)
        actuate(
            self._control, self._torques, self._bias, at_rest, self._columns, self._arm, self._fingers,
            self._closing, self._speed, self._gripped,
        )  # fmt: skip
