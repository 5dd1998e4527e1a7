"""Headless pictures of any MuJoCo model, for simulators that are built on MuJoCo directly."""

from __future__ import annotations

import atexit
import functools
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.mujoco_physics import load_mujoco
from avavla_ray.simulators.opengl import check_opengl

_CAMERAS: weakref.WeakSet[MujocoCameras] = weakref.WeakSet()


def _release_all() -> None:
    for cameras in list(_CAMERAS):
        cameras.release()


@functools.cache
def _release_all_at_exit() -> None:
    # Registered after MuJoCo's own exit handler, hence run before it: that one takes the display away.
    atexit.register(_release_all)


class MujocoCameras:
    """Renders square pictures of a model's named cameras in a GL context of its own, freed once and in order.

    Pictures show what a state and its model are at the time of the call; `mj_forward` must have seen the state.

    Args:
        model: MuJoCo's MjModel; its offscreen buffer is set to `size`.
        size: height and width of the pictures, pixels.
        blind: pictures are black, and no OpenGL is needed.

    Raises:
        InputError: no OpenGL library, or none of its devices can render.
    """

    _released = True  # until the constructor has come to its end

    def __init__(self, model: Any, size: int, *, blind: bool = False) -> None:
        self._model, self._size, self._blind = model, size, blind
        if blind:
            return
        check_opengl()
        mujoco = load_mujoco()
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        try:
            self._context = mujoco.GLContext(size, size)
            self._context.make_current()
            self._buffers = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
            # What the OpenGL bindings raise depends on which of their libraries is missing or finds no device.
            raise InputError(
                f"OpenGL cannot render headless here ({error}): "
                "install libegl1 and libgl1-mesa-dri, or set MUJOCO_EGL_DEVICE_ID or MUJOCO_GL=osmesa"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._buffers)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._options, self._area = mujoco.MjvOption(), mujoco.MjrRect(0, 0, size, size)
        self._released = False
        _CAMERAS.add(self)
        _release_all_at_exit()

    def render(self, data: Any, names: Sequence[str]) -> np.ndarray:
        """(V, H, W, 3) uint8, upright: what the cameras `names` see of the state `data`."""
        pictures = np.zeros((len(names), self._size, self._size, 3), np.uint8)
        if self._blind:
            return pictures
        import mujoco

        self._context.make_current()
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        for picture, name in zip(pictures, names, strict=True):
            camera.fixedcamid = self._model.camera(name).id
            mujoco.mjv_updateScene(
                self._model, data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            mujoco.mjr_render(self._area, self._scene, self._buffers)
            mujoco.mjr_readPixels(picture, None, self._area, self._buffers)
        # OpenGL rows run bottom up.
        return np.ascontiguousarray(pictures[:, ::-1])

    def release(self) -> None:
        """Free the renderer's memory and its GL context; a second call does nothing."""
        if not self._released:
            self._released = True
            self._context.make_current()
            self._buffers.free()
            self._context.free()

    def __del__(self) -> None:
        self.release()
