"""The fast renderer: a picture that costs a fraction and looks almost the same.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from avavla_ray.simulators.libero.rendering import VISUAL_GEOMS, Renderer
from avavla_ray.simulators.libero.robot_meshes import with_reduced_robot
from avavla_ray.simulators.libero.stepping import Steps

# A group that MuJoCo draws only when it is told to.
HIDDEN_GEOMS = 5


class FastRenderer(Renderer):
    """No multisampling, no mirror images, and nothing that is out of the picture.

    On a software renderer the first two cost more than the rest. MuJoCo itself sends every geom through OpenGL,
    wherever the camera looks; leaving out those beside its view changes no pixel.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        # Planes are endless: they have no bounding sphere.
        (self._bounded,) = np.nonzero((self.model.geom_group == VISUAL_GEOMS) & (self.model.geom_rbound > 0))
        self._radius = self.model.geom_rbound[self._bounded]

    def _tune(self) -> None:
        self.model.vis.quality.offsamples = 0

    def out_of_view(self, camera: int) -> np.ndarray:
        """Indices of visual geoms whose bounding sphere lies beside or behind the view of `camera`."""
        data, half = self.data, np.radians(self.model.cam_fovy[camera]) / 2
        offset = data.geom_xpos[self._bounded] - data.cam_xpos[camera]
        x, y, z = (offset @ data.cam_xmat[camera].reshape(3, 3)).T
        # A camera looks along its negative z axis; this is the distance from the nearest side of its pyramid.
        outside = np.maximum(np.abs(x), np.abs(y)) * np.cos(half) + z * np.sin(half)
        return self._bounded[outside > self._radius]

    def _describe(self, camera: int) -> None:
        hidden, group = self.out_of_view(camera), self.model.geom_group
        group[hidden] = HIDDEN_GEOMS
        super()._describe(camera)
        group[hidden] = VISUAL_GEOMS


class FastRendering(Steps):
    """Mixed into a LIBERO problem class: draws with `FastRenderer` and a low-poly robot; physics equal to rounding."""

    exact = False
    draws_with: type[Renderer] | None = FastRenderer

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        self._xml_processor = with_reduced_robot
        super()._initialize_sim(xml_string)


class Blind(FastRendering):
    """Draws nothing; pictures stay black."""

    draws_with = None
