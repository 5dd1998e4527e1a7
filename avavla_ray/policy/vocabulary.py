"""The words of LIBERO's 130 and CALVIN's instructions: every word that the benchmarks can say has its own id."""

from __future__ import annotations

# Sorted, so that ids depend on the set of words alone. A new word changes ids: checkpoints carry their vocabulary.
WORDS: tuple[str, ...] = tuple(
    """
    90 a akita all alphabet and another at back basket bbq between black block blocks blue book both bottle bottom
    bowl box bulb butter button cabinet caddy center cheese chocolate close collapse compartment cookie cookies cream
    degrees door down downwards drawer dressing each falls from front frying go grasp grasped green handle in inside
    into is it juice ketchup lamp layer led left let lift light lying microwave middle milk moka move mug next object
    of off on one open orange other pan pick pink place plate pot pots pudding pull push put rack ramekin red remove
    right rotate salad sauce shelf side slide slider sliding soup stack stacked store stove sweep switch table take
    that the them then to toggle tomato top towards tower tray turn under unstack up upwards way white wine wooden
    yellow
    """.split()  # noqa: SIM905
)
