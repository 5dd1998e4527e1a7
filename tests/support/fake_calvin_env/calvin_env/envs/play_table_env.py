"""PlayTableSimEnv without physics, for contract tests."""

import numpy as np

VERSION = "main"  # or "pinned": which of calvin_env's two known versions to act like
TABLE_UID, ROBOT_UID = 5, 0
LINKS = {"base_link": -1, "drawer_link": 3, "plank_link": 6}
UPPER = {"base__slide": 0.28, "base__drawer": 0.22}
BUTTON = np.array([-0.12, -0.12, 0.46])
HEIGHTS = {"base_link": 0.46, "plank_link": 0.461, "drawer_link": 0.33}


def get_git_commit_hash(path):
    raise RuntimeError(f"{path} lies in no git tree")


class EngineError(Exception):
    pass


class Engine:
    error = EngineError

    def __init__(self):
        self.gravity = -9.8

    def getJointInfo(self, body, joint, physicsClientId):
        name = list(UPPER)[joint]
        return (joint, name.encode(), 1, 0, 0, 0, 0, 0, 0.0, UPPER[name])

    def getAABB(self, body, link, physicsClientId):
        assert link == LINKS["drawer_link"]
        return (-0.045, -0.485, 0.295), (0.405, -0.155, 0.405)

    def setGravity(self, x, y, z, physicsClientId):
        self.gravity = z

    def disconnect(self, physicsClientId):
        pass


class Part:
    """A door, a button, a switch or a light: one number."""

    def __init__(self, name, joint_index=None):
        self.name, self.joint_index, self.value = name, joint_index, 0.0

    def reset(self, state=None):
        self.value = 0.0 if state is None else float(state)

    def get_info(self):
        return {"logical_state": int(self.value), "current_state": self.value}


class Block:
    def __init__(self, name, uid, random):
        self.name, self.uid, self.initial_pos = name, uid, "any"
        self.pose = np.array([*random.uniform(0, 0.3, 2), 0.46, 0, 0, 0])

    def reset(self, state):
        self.pose = np.array(state, float)


class Table:
    name, uid = "table", TABLE_UID

    def __init__(self):
        self.info_dict = {"uid": TABLE_UID, "links": LINKS}


class Scene:
    def __init__(self, settings, random):
        self.np_random = random
        self.surfaces = settings["surfaces"]
        self._names = list(settings["objects"]["movable_objects"])
        self.load()

    def load(self):
        self.doors = [Part(name, index) for index, name in enumerate(UPPER)]
        self.buttons, self.switches = [Part("base__button")], [Part("base__switch")]
        self.lights = [Part("lightbulb"), Part("led")]
        self.fixed_objects = [Table()]
        self.movable_objects = [Block(name, 2 + index, self.np_random) for index, name in enumerate(self._names)]

    @property
    def parts(self):
        return [*self.doors, *self.buttons, *self.switches, *self.lights]

    def get_obs(self):
        return np.array([*(part.value for part in self.parts), *np.concatenate([b.pose for b in self.movable_objects])])

    def reset(self, state):
        for part, value in zip(self.parts, state[:6], strict=True):
            part.reset(value)
        self.buttons[0].value = self.lights[1].value if VERSION == "main" else 0.0
        for block, pose in zip(self.movable_objects, np.split(state[6:], 3), strict=True):
            block.reset(pose)


class Robot:
    robot_uid = ROBOT_UID

    def __init__(self, settings):
        self.settings, self.gripper_action = settings, 1
        self.reset(np.zeros(15))

    def reset(self, state):
        self.joints = np.array(state[7:14], float)
        self.target_pos, self.target_orn = np.array(state[:3], float), np.array(state[3:6], float)

    def relative_to_absolute(self, action):
        action = action.copy() if VERSION == "main" else action
        action[:3] *= self.settings["max_rel_pos"]
        action[3:6] *= self.settings["max_rel_orn"]
        self.target_pos += action[:3]
        self.target_orn += action[3:6]

    def get_observation(self):
        width = 0.08 if self.gripper_action == 1 else 0.04
        state = np.array([*self.target_pos, *self.target_orn, width, *self.joints, self.gripper_action])
        return state, {"uid": ROBOT_UID, "contacts": ()}


class PlayTableSimEnv:
    def __init__(
        self, robot_cfg, seed, use_vr, bullet_time_step, cameras, show_gui, scene_cfg, use_scene_info, use_egl,
        control_freq=30,
    ):  # fmt: skip
        assert (bullet_time_step, control_freq, use_scene_info) == (240.0, 30, True)
        assert robot_cfg["gripper_joint_ids"] == [9, 11]
        self.p, self.cid, self.cameras = Engine(), 0, [cameras[name] for name in cameras]
        assert all(camera.width == camera.height for camera in self.cameras)
        self.seed(seed)
        self.robot, self.scene = Robot(robot_cfg), Scene(scene_cfg, self.np_random)
        self._settle()

    def seed(self, seed=None):
        self.np_random = np.random.default_rng(seed)

    def load(self):
        self.scene.load()

    def reset(self, robot_obs=None, scene_obs=None):
        if scene_obs is not None:
            self.scene.reset(scene_obs)
        if robot_obs is not None:
            self.robot.reset(robot_obs)
        self._settle()
        return self.get_obs()

    def step(self, action):
        assert action[6] in (-1, 1)
        held = self._held()
        before = self.robot.target_pos.copy()
        self.robot.relative_to_absolute(action)
        self.robot.gripper_action = int(action[6])
        if held is not None and self.robot.gripper_action == -1:
            held.pose[:3] += self.robot.target_pos - before
        button = self.scene.buttons[0]
        pressed = np.linalg.norm(self.robot.target_pos - BUTTON) < 0.03
        if pressed and not getattr(button, "pressed", False):
            button.value = 1 - button.value
            self.scene.lights[1].value = button.value
        button.pressed = pressed
        self._settle()
        return self.get_obs(), 0, False, self.get_info()

    def get_camera_obs(self):
        shade = int(abs(self.robot.target_pos).sum() * 1000) % 256
        pictures = {f"rgb_{c.name}": np.full((c.height, c.width, 3), shade, np.uint8) for c in self.cameras}
        for picture in pictures.values():
            picture[: len(picture) // 2] ^= 255  # no scene has a single colour
        return pictures, {name: picture[..., 0] for name, picture in pictures.items()}

    def get_obs(self):
        rgb, depth = self.get_camera_obs()
        robot, _ = self.robot.get_observation()
        return {"rgb_obs": rgb, "depth_obs": depth, "robot_obs": robot, "scene_obs": self.scene.get_obs()}

    def get_info(self):
        return {
            "robot_info": self.robot.get_observation()[1],
            "scene_info": {
                "fixed_objects": {"table": {"uid": TABLE_UID, "links": LINKS}},
                "movable_objects": {block.name: self._describe(block) for block in self.scene.movable_objects},
                "lights": {light.name: light.get_info() for light in self.scene.lights},
            },
        }

    def _held(self):
        closed = self.robot.gripper_action == -1
        near = [b for b in self.scene.movable_objects if np.linalg.norm(b.pose[:3] - self.robot.target_pos) < 0.02]
        return near[0] if closed and near else None

    def _below(self, block):
        """What the block lies on, and at which height its centre then is."""
        for other in self.scene.movable_objects:
            above = other is not block and block.pose[2] - other.pose[2] > 0.03
            if above and np.linalg.norm(block.pose[:2] - other.pose[:2]) < 0.02:
                return (other.uid, -1), other.pose[2] + 0.04
        link = "plank_link" if block.pose[1] > 0.03 else "drawer_link" if block.pose[1] < -0.18 else "base_link"
        return (TABLE_UID, LINKS[link]), HEIGHTS[link]

    def _settle(self):
        for block in sorted(self.scene.movable_objects, key=lambda block: block.pose[2]):
            if block is not self._held() and self.p.gravity:
                block.pose[2] = self._below(block)[1]

    def _describe(self, block):
        body, link = (ROBOT_UID, 8) if block is self._held() else self._below(block)[0]
        return {
            "uid": block.uid, "current_pos": tuple(block.pose[:3]), "contacts": ((0, block.uid, body, -1, link),),
        }  # fmt: skip

    def close(self):
        raise AssertionError("the project closes the engine's client itself")
