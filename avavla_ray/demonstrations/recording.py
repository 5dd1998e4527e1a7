"""Recording one demonstration: the expert acts, no-ops go where they can, only a success is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from avavla_ray.demonstrations.schema import encode_image
from avavla_ray.simulators.base import Observation, PlaysUnseen, Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.experts.expert import Expert
from avavla_ray.simulators.isolated.garbage import wrong_observation, wrong_result

NO_MOTION = 1e-4

Actor = Callable[[Observation], np.ndarray | None]  # None ends the episode
Take = tuple[list[Observation], list[np.ndarray], bool]  # what was seen before each action, the actions, the success


@dataclass(frozen=True)
class Recording:
    """One attempt at a task.

    Attributes:
        success: the task's own check held; without it the rest is empty.
        images: T entries, each one PNG a camera. proprio: (T, P) float32.
        actions: (T, A) float32, what the expert meant to do; its noise disturbs what is executed only.
        dropped: no-op steps that were left out. steps: environment steps simulated.
    """

    success: bool
    images: list[list[bytes]]
    proprio: np.ndarray
    actions: np.ndarray
    dropped: int
    steps: int
    instruction: str


def kept_steps(actions: np.ndarray) -> np.ndarray:
    """(T,) bool: False at no-ops, as OpenVLA filters LIBERO: hardly any motion and the gripper command of the last
    step that was kept."""
    keep = np.ones(len(actions), bool)
    gripper: float | None = None
    for index, action in enumerate(actions):
        still = np.linalg.norm(action[:-1]) < NO_MOTION
        if still and (gripper is None or action[-1] == gripper):
            keep[index] = False
        else:
            gripper = action[-1]
    return keep


def record(
    simulator: Simulator,
    make_expert: Callable[[int], Expert],
    *,
    task: int,
    seed: int,
    begin: Callable[[int, int], Observation] | None = None,
) -> Recording:
    """Play one episode from a start drawn with `seed`, never one of the published evaluation states.

    When the expert's episode holds no-ops it is played again without them, since what follows a pause depends on it;
    the demonstration is what came of that. Where they were needed, for a thing to come to rest, it keeps them. Where
    pictures are costly (`PlaysUnseen`), all this goes unseen, and what is kept is looked at when it is played again.

    Args:
        make_expert: builds the expert for the episode just begun in `simulator`, from a seed.
        begin: starts the episode of a task, by a seed; `simulator.reset` when None.

    Raises:
        NoExpert: from `make_expert`. SimulatorFailure: the simulator broke, or what it sends is garbage.
    """
    config = simulator.config
    reset = begin or (lambda task, seed: simulator.reset(task, seed=seed))
    unseen = simulator.unseen if config.render != "none" and isinstance(simulator, PlaysUnseen) else None
    steps, intended = 0, list[np.ndarray]()

    def play(make_actor: Callable[[], Actor], *, last: bool = False) -> Take:
        """From the start; pictures that are costly are made `last` only."""
        nonlocal steps
        shown = config if last or unseen is None else replace(config, render="none")
        with contextlib.nullcontext() if last or unseen is None else unseen():
            observation = reset(task, seed)
            _check(wrong_observation(observation, simulator.spec, shown))
            take = _play(simulator, shown, observation, make_actor())
        steps += len(take[1])
        return take

    def expert() -> Actor:
        own = make_expert(seed)

        def act(_: Observation) -> np.ndarray:
            action = np.clip(own.act(), -1, 1)
            intended.append(np.clip(own.intended, -1, 1))
            return action

        return act

    frames, actions, success = play(expert)
    played, kept, instruction = np.array(actions), np.ones(len(actions), bool), frames[0].instruction

    def script(steps: np.ndarray) -> Callable[[], Actor]:
        rest = iter(played[steps])
        return lambda: lambda _: next(rest, None)

    moving = kept_steps(played) if success else kept
    if not moving.all() and (shorter := play(script(moving)))[2]:
        kept, (frames, actions, success) = moving, shorter
    if success and unseen is not None:
        frames, actions, success = play(script(kept), last=True)
    if not success:
        return Recording(False, [], np.zeros((0, 0)), np.zeros((0, 0)), 0, steps, instruction)
    return Recording(
        True,
        [[encode_image(picture) for picture in frame.images] for frame in frames],
        np.stack([frame.proprio for frame in frames]).astype(np.float32),
        # The replay may succeed before its script ends.
        np.array(intended, np.float32)[kept][: len(actions)],
        int((~kept).sum()),
        steps,
        instruction,
    )


def _check(wrong: str | None) -> None:
    """What no working simulator sends must never get into a data set."""
    if wrong is not None:
        raise SimulatorFailure(f"the simulator sent {wrong}", "garbage")


def _play(
    simulator: Simulator,
    config: SimulatorConfig,
    observation: Observation,
    act: Actor,
) -> Take:
    """Act until the episode or the actions end: what was seen before each action, the actions, and the success."""
    frames, actions = [], []
    while (action := act(observation)) is not None:
        action = np.asarray(action, np.float32)
        frames.append(observation)
        actions.append(action)
        result = simulator.run_chunk(action[None])
        _check(wrong_result(result, simulator.spec, config, 1))
        observation = result.observation
        if result.done:
            return frames, actions, result.success
    return frames, actions, False
