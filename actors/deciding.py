"""Between a runner's simulators and what decides for them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from actors.episodes import Episodes
from actors.placement import Placement
from actors.slots import CHUNK, Buffer, Closing, Slot, make_question, to_keep
from avavla_ray.simulators.isolated.side_by_side import begin_chunk
from avavla_ray.timing import span


class Deciding:
    """Asks what to do in the simulators of a buffer, and has them do it.

    Args:
        actions: draw the chunks, and keep what replaying whole decisions needs. exits: draw the exits.
    """

    def __init__(self, placement: Placement, episodes: Episodes, *, actions: bool, exits: bool) -> None:
        self._placement, self._episodes, self._actions, self._exits = placement, episodes, actions, exits

    def wanted(self, slot: Slot) -> bool:
        """Whether the order asks for another decision in this simulator."""
        order = self._episodes.order
        return order is None or not order.lockstep or self._episodes.groups is not None or slot.asked < order.decisions

    def ask(self, buffer: Buffer) -> None:
        """Ask what to do in the buffer's simulators that wait for it, and what its closings wait for."""
        self._ask(buffer, [slot for slot in buffer.slots if slot.observation is not None and self.wanted(slot)])

    def close(self, buffer: Buffer) -> None:
        """What follows the last rows of its simulators is what they show now."""
        for slot in buffer.slots:
            if slot.rows.loose and slot.observation is not None:
                buffer.closings.append(Closing.of(slot, slot.observation, whole=False))
        self.settle(buffer)

    def settle(self, buffer: Buffer) -> None:
        """What has ended waits for nobody else's decision."""
        self._ask(buffer, [])
        if buffer.ticket is not None:
            self.act(buffer)

    def act(self, buffer: Buffer) -> None:
        """Begin what the policy says; what it was asked about is recorded while the simulators step.

        Raises:
            PolicyServerLost: no server answers. RayError: the weights are lost; act again with others.
        """
        ticket, question, begun = buffer.ticket, buffer.question, time.perf_counter()
        assert ticket is not None
        assert question is not None
        try:
            with span("policy"):
                answer = ticket.result()
        finally:
            self._episodes.delivery.report.policy_seconds += time.perf_counter() - begun
        buffer.ticket = None
        if buffer.asked and not self._episodes.draining:
            actions = self._placement.translation.actions(answer.rows["chunk"])
            for slot, chunk in zip(buffer.asked, actions, strict=True):
                begin_chunk(slot.simulator, chunk)
                slot.flying, slot.actions = CHUNK, chunk
            buffer.since = time.monotonic()
        with span("recording"):
            closings, buffer.closings = buffer.closings, []
            for closing, z0 in zip(closings, answer.z0, strict=True):
                closing.rows.follow(z0, closing.position)
                if closing.whole:
                    self._episodes.delivery.add(closing.rows, closing.group)
            if buffer.asked:
                kept = to_keep(question, answer, seen=self._actions)
                for index, slot in enumerate(buffer.asked):
                    self._record(slot, kept, index, answer.version)
                    slot.hidden, slot.history = answer.rows["hidden"][index], answer.rows["history"][index]

    def _ask(self, buffer: Buffer, slots: list[Slot]) -> None:
        buffer.since = time.monotonic()
        if not slots and not buffer.closings:
            return
        begun = time.perf_counter()
        with span("policy"):
            buffer.asked = slots
            buffer.question = make_question(
                slots, buffer.closings, self._placement.translation, actions=self._actions, exits=self._exits
            )
            buffer.ticket = self._placement.ask(buffer.question)
        self._episodes.delivery.report.policy_seconds += time.perf_counter() - begun

    def _record(self, slot: Slot, kept: Mapping[str, np.ndarray], index: int, version: int) -> None:
        episodes, rows = self._episodes, slot.rows
        if episodes.draining:  # it is not done; but it tells what followed
            if rows.loose:
                rows.follow(kept["z"][index, 0])
            return
        assert episodes.order is not None
        bounded = episodes.groups is None and not episodes.order.lockstep
        if rows.loose and bounded and len(rows) >= episodes.order.decisions:
            rows.follow(kept["z"][index, 0])
            episodes.finish_rows(slot)
        if not len(slot.rows):
            slot.rows = episodes.new_rows()
        episode = slot.playing
        slot.rows.begin(
            kept, index, version=version, task=episode.task, episode=episode.name, decision=episode.decisions
        )  # fmt: skip
        slot.observation = None
        slot.latent_steps = int(kept["steps"][index])
        slot.asked += 1
