"""What each task needs and changes, in the symbols of the evaluation protocol.

A condition of the scene is a dict over `KEYS`: led and lightbulb 0 or 1, slider "left" or "right", drawer "open" or
"closed", each block "table", "slider_left", "slider_right", "drawer", "grasped", "stacked_top" or "stacked_bottom", and
grasped 0 or 1 (the hand is empty or full).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

from avavla_ray.simulators.calvin.tasks import COLOURS

Condition = dict[str, Any]
BLOCKS = tuple(f"{colour}_block" for colour in COLOURS)
KEYS = ("led", "lightbulb", "slider", "drawer", *BLOCKS, "grasped")
COMPARTMENTS = ("slider_left", "slider_right")


@dataclass(frozen=True)
class Rule:
    """One way in which a task can be done.

    Attributes:
        needs: the values that a key may have before, by key. makes: the value that a key has after.
    """

    needs: dict[str, tuple[Any, ...]]
    makes: dict[str, Any]

    def holds(self, condition: Condition) -> bool:
        return all(condition[key] in values for key, values in self.needs.items())

    def apply(self, condition: Condition) -> Condition:
        """The condition afterwards; `condition` itself stays."""
        return {**condition, **self.makes}


def _rule(needs: dict[str, Any], makes: dict[str, Any], *, hand: int = 0) -> Rule:
    values = {key: value if isinstance(value, tuple) else (value,) for key, value in needs.items()}
    return Rule({**values, "grasped": (hand,)}, makes)


def _rules() -> dict[str, tuple[Rule, ...]]:
    rules: dict[str, tuple[Rule, ...]] = {}
    pairs = list(permutations(BLOCKS, 2))
    for block in BLOCKS:
        held = {block: "grasped", "grasped": 1}
        for side in ("right", "left"):
            rules[f"rotate_{block}_{side}"] = rules[f"push_{block}_{side}"] = (_rule({block: "table"}, {}),)
        rules[f"lift_{block}_table"] = (_rule({block: "table"}, held),)
        # A block stands in a compartment of the cabinet, and the sliding door covers the other one.
        rules[f"lift_{block}_slider"] = (
            _rule({block: "slider_left", "slider": "right"}, held),
            _rule({block: "slider_right", "slider": "left"}, held),
        )
        rules[f"lift_{block}_drawer"] = (_rule({block: "drawer", "drawer": "open"}, held),)
    for side, other in (("left", "right"), ("right", "left")):
        rules[f"move_slider_{side}"] = (_rule({"slider": other}, {"slider": side}),)
    rules["open_drawer"] = (_rule({"drawer": "closed"}, {"drawer": "open"}),)
    rules["close_drawer"] = (_rule({"drawer": "open"}, {"drawer": "closed"}),)
    for light in ("lightbulb", "led"):
        rules[f"turn_on_{light}"] = (_rule({light: 0}, {light: 1}),)
        rules[f"turn_off_{light}"] = (_rule({light: 1}, {light: 0}),)
    # The protocol books a block put into the cabinet under the side that the door is on.
    rules["place_in_slider"] = tuple(
        _rule({block: "grasped", "slider": side}, {block: f"slider_{side}", "grasped": 0}, hand=1)
        for block in BLOCKS
        for side in ("right", "left")
    )
    rules["place_in_drawer"] = tuple(
        _rule({block: "grasped", "drawer": "open"}, {block: "drawer", "grasped": 0}, hand=1) for block in BLOCKS
    )
    rules["stack_block"] = tuple(
        _rule({a: "grasped", b: "table"}, {a: "stacked_top", b: "stacked_bottom", "grasped": 0}, hand=1)
        for a, b in pairs
    )
    rules["unstack_block"] = tuple(
        _rule({a: "stacked_top", b: "stacked_bottom"}, {a: "table", b: "table"}) for a, b in pairs
    )
    rules["push_into_drawer"] = tuple(
        _rule(
            {block: "table", **{other: COMPARTMENTS for other in BLOCKS if other != block}, "drawer": "open"},
            {block: "drawer"},
        )
        for block in BLOCKS
    )
    return rules


RULES: dict[str, tuple[Rule, ...]] = _rules()


def outcomes(task: str, condition: Condition) -> list[Condition]:
    """The conditions that `task` may lead to; empty when it is impossible in `condition`."""
    return [rule.apply(condition) for rule in RULES[task] if rule.holds(condition)]
