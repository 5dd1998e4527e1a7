"""The fast renderer: a picture that costs a fraction and looks almost the same. States are untouched.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

import mujoco

from avavla_ray.simulators.libero.environment import OwnRenderContext
from avavla_ray.simulators.libero.robot_meshes import with_reduced_robot
from avavla_ray.simulators.libero.stepping import ExactSteps


class FastRenderContext(OwnRenderContext):
    """No multisampling and no mirror images; on a software renderer both cost more than the rest of the picture."""

    def _set_mujoco_context_and_buffers(self) -> None:
        self.model.vis.quality.offsamples = 0
        self.scn.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        super()._set_mujoco_context_and_buffers()


class FastRendering(ExactSteps):
    """Mixed into a LIBERO problem class: renders with `FastRenderContext` and a low-poly robot."""

    render_context = FastRenderContext

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        self._xml_processor = with_reduced_robot
        super()._initialize_sim(xml_string)
