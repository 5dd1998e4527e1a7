"""A policy that decides for batches of robots; Ray Serve keeps it alive, and several of it if asked to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actors.serving.messages import Answer, Ask, BeliefArrays, PolicyFacts
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.precision import DTYPES, dtype_of
from avavla_ray.policy.robot import Prepared, decide_prepared
from avavla_ray.policy.types import Belief, PolicyInputs


@dataclass(frozen=True)
class PolicyPlan:
    """Which policy to load and how it thinks.

    Attributes:
        checkpoint: folder, at this place on every node that may load it. digest: that it must have: a policy that is
            started again must not be another one, because somebody trained on in the meantime.
        device: "cpu" or "cuda". precision: of the backbone; None takes the files'.
        threads: processor threads that it computes with.
        options: of `AvaVlaPolicy.decide`: exit_threshold, depth, keep_ratio.
    """

    checkpoint: str
    digest: str
    device: str
    precision: str | None
    threads: int
    options: dict[str, Any]


class PolicyReplica:
    """One policy. `problem` says if its checkpoint can't be loaded: if that were raised, Serve would start it again."""

    def __init__(self, plan: PolicyPlan) -> None:
        torch.set_num_threads(plan.threads)
        self._plan = plan
        self._problem: str | None = None
        try:
            dtype = None if plan.precision is None else dtype_of(plan.precision)
            loaded = load_checkpoint(plan.checkpoint, device=plan.device, dtype=dtype)
            if loaded.digest != plan.digest:
                raise InputError(
                    f"checkpoint {plan.checkpoint} isn't the one that the server began with: start it anew"
                )
        except InputError as error:
            self._problem = str(error)
            return
        self._policy = loaded.policy
        # What a first decision has to set up is not for the first robot to wait for.
        self._policy.decide(self._blank(), self._policy.initial_belief(1, self._policy.device), **plan.options)

    def _blank(self) -> PolicyInputs:
        config, device = self._policy.config, self._policy.device
        size = config.backbone.image_size
        images = torch.zeros(1, config.backbone.num_cameras, size, size, 3, dtype=torch.uint8, device=device)
        text = self._policy.preparation.text("wait")[None].to(device)
        return PolicyInputs(images, text, torch.zeros(1, config.proprio_dim, device=device))

    def problem(self) -> str | None:
        """Why there is no policy, if there is none."""
        return self._problem

    def facts(self) -> PolicyFacts:
        """What the HTTP side must know."""
        policy = self._policy
        belief = policy.initial_belief(1)
        kind = next(parameter.dtype for parameter in policy.backbone.parameters())
        device = torch.cuda.get_device_name() if policy.device.type == "cuda" else "cpu"
        return PolicyFacts(
            self._plan.digest, policy.config, policy.statistics, device,
            next(name for name, dtype in DTYPES.items() if dtype == kind),
            tuple(belief.hidden.shape), tuple(belief.history.shape), self._plan.options,
        )  # fmt: skip

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()

    def decide(self, asks: Sequence[Ask]) -> list[Answer]:
        """One forward pass for all of them."""
        if self._problem is not None:  # damaged after the server's start
            raise RuntimeError(self._problem)
        policy = self._policy
        prepared = [
            Prepared(
                ask.images, torch.tensor(ask.text), ask.proprio,
                policy.initial_belief(1) if ask.belief is None else Belief(*map(torch.tensor, ask.belief)),
                policy.statistics[ask.unnorm_key],
            )
            for ask in asks
        ]  # fmt: skip
        return [
            Answer(
                decision.actions, BeliefArrays(*(np.array(part.cpu()) for part in decision.belief)),
                decision.latent_steps, decision.exit_scores, decision.milliseconds,
            )
            for decision in decide_prepared(policy, prepared, **self._plan.options)
        ]  # fmt: skip
