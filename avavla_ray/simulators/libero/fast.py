"""The fast renderer: a picture that costs a fraction and looks almost the same. States are untouched.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

from typing import Any

import mujoco

from avavla_ray.simulators.libero.rendering import Renderer
from avavla_ray.simulators.libero.robot_meshes import with_reduced_robot
from avavla_ray.simulators.libero.stepping import ExactSteps


class FastRenderer(Renderer):
    """No multisampling and no mirror images; on a software renderer both cost more than the rest of the picture."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def _tune(self) -> None:
        self.model.vis.quality.offsamples = 0


class FastRendering(ExactSteps):
    """Mixed into a LIBERO problem class: draws with `FastRenderer` and a low-poly robot."""

    draws_with = FastRenderer

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        self._xml_processor = with_reduced_robot
        super()._initialize_sim(xml_string)
