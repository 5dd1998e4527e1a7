"""Pictures of a scene: stock LIBERO's pixels, from one OpenGL context for all scenes of a simulator.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import atexit
import functools
import weakref

import mujoco
import numpy as np
from robosuite.utils.binding_utils import GLContext

# robosuite's own: what fits into its scene, and its font, which no picture shows.
MOST_GEOMS = 1000
FONT = mujoco.mjtFontScale.mjFONTSCALE_150
COLLISION_GEOMS, VISUAL_GEOMS = 0, 1

_SHARED: weakref.WeakSet[SharedContext] = weakref.WeakSet()


def _release_all() -> None:
    for context in list(_SHARED):
        context.release()


@functools.cache
def _release_all_at_exit() -> None:
    # Registered after robosuite's exit handler, hence run before it: that one takes the display away.
    atexit.register(_release_all)


class SharedContext:
    """An OpenGL context that several renderers draw in; it is freed once, and they before it."""

    def __init__(self, size: int) -> None:
        self._context = GLContext(max_width=size, max_height=size, device_id=-1)
        self._renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()
        self._freed = False
        _SHARED.add(self)
        _release_all_at_exit()

    def make_current(self) -> None:
        """Other contexts may live in this process, stock LIBERO's among them."""
        self._context.make_current()

    def adopt(self, renderer: Renderer) -> None:
        """Free `renderer` before the context."""
        self._renderers.add(renderer)

    def release(self) -> None:
        """Free the renderers and the context; a second call does nothing."""
        if not self._freed:
            for renderer in list(self._renderers):
                renderer.release()
            self._freed = True
            self._context.free()


class Renderer:
    """Draws one model as stock LIBERO does: visual geoms, MuJoCo's default quality.

    Args:
        model, data: of the scene.
        size: height and width of pictures, pixels.
        context: where to draw.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, size: int, context: SharedContext) -> None:
        self.model, self.data, self.context = model, data, context
        # The default buffers, 640 x 480 pixels and 64 MiB of shadow map, give the same pixels.
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        if not model.light_castshadow.any():
            model.vis.quality.shadowsize = 0
        self._tune()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._scene = mujoco.MjvScene(model, maxgeom=MOST_GEOMS)
        self._camera, self._perturbation = mujoco.MjvCamera(), mujoco.MjvPerturb()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._options = mujoco.MjvOption()
        self._options.geomgroup[COLLISION_GEOMS], self._options.geomgroup[VISUAL_GEOMS] = 0, 1
        context.make_current()
        self._resources = mujoco.MjrContext(model, FONT)
        self._freed = False
        context.adopt(self)

    def _tune(self) -> None:
        """Change the model's quality settings before its meshes and textures are loaded."""

    def _describe(self, camera: int) -> None:
        """Fill the abstract scene with what `camera` may see."""
        self._camera.fixedcamid = camera
        mujoco.mjv_updateScene(
            self.model, self.data, self._options, self._perturbation, self._camera, mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )  # fmt: skip

    def draw(self, camera: int, picture: np.ndarray) -> None:
        """Draw what `camera`, an index of the model, sees into `picture` (H, W, 3) uint8, rows bottom up."""
        self.context.make_current()
        # Another renderer may have drawn into its own buffer since.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._resources)
        self._describe(camera)
        mujoco.mjr_render(self._viewport, self._scene, self._resources)
        mujoco.mjr_readPixels(picture, None, self._viewport, self._resources)

    def release(self) -> None:
        """Free meshes, textures and buffers; a second call does nothing."""
        if not self._freed:
            self._freed = True
            self.context.make_current()
            self._resources.free()

    def __del__(self) -> None:
        if hasattr(self, "_freed"):
            self.release()
