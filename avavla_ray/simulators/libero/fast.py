"""The fast renderer: a picture that costs a fraction and looks almost the same.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import itertools
from typing import Any

import mujoco
import numpy as np

from avavla_ray.simulators.libero.rendering import VISUAL_GEOMS, Renderer
from avavla_ray.simulators.libero.robot_meshes import with_reduced_robot
from avavla_ray.simulators.libero.stepping import Steps

# A group of geoms or sites that MuJoCo draws only when it is told to.
HIDDEN_GROUP = 5
CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


class FastRenderer(Renderer):
    """No multisampling, no mirror images, coarser boxes, and nothing that is out of the picture or invisible.

    A software renderer is bound by samples and vertices. MuJoCo itself sends every geom through OpenGL, wherever the
    camera looks, and every site, also those that LIBERO hides by a negative opacity, as spheres and cylinders of 900
    triangles each; leaving these out changes no pixel.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        model = self.model
        # Planes are endless: they have no bounding box.
        (self._bounded,) = np.nonzero((model.geom_group == VISUAL_GEOMS) & (model.geom_rbound > 0))
        boxes = model.geom_aabb[self._bounded]
        self._corners = boxes[:, None, :3] + boxes[:, None, 3:] * CORNERS
        self._site_groups = model.site_group.copy()

    def _tune(self) -> None:
        quality = self.model.vis.quality
        # Light is computed at vertices: with less than 2 x 2 quads a side, the spot of a lamp on a table is lost.
        quality.offsamples, quality.numquads = 0, 2
        quality.numslices, quality.numstacks = 14, 8

    def out_of_view(self, camera: int) -> np.ndarray:
        """Indices of visual geoms whose bounding box lies beside or behind the view of `camera`."""
        data, slope = self.data, np.tan(np.radians(self.model.cam_fovy[camera]) / 2)
        axes = data.cam_xmat[camera].reshape(3, 3)
        turns = axes.T @ data.geom_xmat[self._bounded].reshape(-1, 3, 3)
        centres = (data.geom_xpos[self._bounded] - data.cam_xpos[camera]) @ axes
        x, y, z = np.moveaxis(self._corners @ turns.transpose(0, 2, 1) + centres[:, None], 2, 0)
        # A camera looks along its negative z axis; a box is out when all its corners are beyond one side of the view.
        edge = -slope * z
        outside = (x > edge).all(1) | (x < -edge).all(1) | (y > edge).all(1) | (y < -edge).all(1)
        return self._bounded[outside]

    def _describe(self, camera: int) -> None:
        model = self.model
        hidden = self.out_of_view(camera)
        model.geom_group[hidden] = HIDDEN_GROUP
        # Read anew each time: LIBERO shows a stove's flame by its site.
        model.site_group[model.site_rgba[:, 3] <= 0] = HIDDEN_GROUP
        super()._describe(camera)
        model.geom_group[hidden] = VISUAL_GEOMS
        model.site_group[:] = self._site_groups


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
