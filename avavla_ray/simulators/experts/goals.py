"""From a LIBERO task's goal predicates to the skill that is due."""

from __future__ import annotations

from avavla_ray.simulators.experts.articulation import Articulation, drawer_of
from avavla_ray.simulators.experts.destination import destination_of
from avavla_ray.simulators.experts.drawers import PULL_TO_FILL, OpenDrawer, ShutDrawer
from avavla_ray.simulators.experts.expert import NoExpert
from avavla_ray.simulators.experts.knob import TurnKnob
from avavla_ray.simulators.experts.pick_place import PickPlace, too_flat_to_lift
from avavla_ray.simulators.experts.scene import Scene, Skill

# Share of a drawer's way below which things don't go in.
OPEN_ENOUGH = 0.7


def ordered(goals: list[list[str]]) -> list[list[str]]:
    """Goals in an order in which meeting one neither undoes nor bars another.

    Doors and drawers that nothing goes into are closed, others are opened, and knobs turned; then things are put in
    their places, what carries another thing before that thing; and what things were put into is closed last.
    """
    placed = {goal[1]: goal[2] for goal in goals if len(goal) == 3}

    def depth(thing: str) -> int:
        return 1 + depth(placed[thing]) if thing in placed else 0

    def rank(goal: list[str]) -> int:
        if len(goal) == 3:
            return 3 + depth(goal[1])
        if goal[0] == "close":
            filled = any(place == goal[1] or place.startswith(f"{goal[1]}_") for place in placed.values())
            return 100 if filled else 0
        return 1 if goal[0] == "open" else 2

    return sorted(goals, key=rank)


def skill_for(scene: Scene, goal: list[str]) -> Skill:
    """The skill that works towards `goal` from the present state.

    Raises:
        NoExpert: none does.
    """
    if goal[0] in ("on", "in"):
        drawer = drawer_of(scene, goal[2]) if goal[0] == "in" else None
        if drawer is not None and drawer.openness < OPEN_ENOUGH:
            return OpenDrawer(scene, drawer, PULL_TO_FILL)
        destination = destination_of(scene, goal)
        if too_flat_to_lift(scene, goal[1]):
            raise NoExpert(f"no scripted expert for the goal ({' '.join(goal)}): {goal[1]} is too flat to take hold of")
        return PickPlace(scene, goal[1], destination)
    joint = Articulation(scene, goal[1])
    if goal[0] in ("turnon", "turnoff"):
        return TurnKnob(scene, joint, on=goal[0] == "turnon")
    if joint.slides:
        return OpenDrawer(scene, joint) if goal[0] == "open" else ShutDrawer(scene, joint)
    raise NoExpert(f"no scripted expert for the goal ({' '.join(goal)})")
