"""A policy that decides for batches of robots; Ray Serve keeps it alive, and several of it if asked to."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from actors.serving.messages import Answer, Ask, BeliefArrays, PolicyFacts
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.config import BackboneConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.precision import dtype_of
from avavla_ray.policy.robot import Prepared, decide_prepared
from avavla_ray.policy.types import Belief


@dataclass(frozen=True)
class PolicyPlan:
    """Which policy to load and how it thinks.

    Attributes:
        checkpoint: folder, at this place on every node that may load it. digest: that it must have: a policy that is
            started again must not be another one, because somebody trained on in the meantime.
        device: "cpu" or "cuda". precision: of the backbone; None takes the files'.
        threads: processor threads that it computes with.
        options: of `AvaVlaPolicy.decide`: exit_threshold, depth, keep_ratio.
        attention: kernel of an OpenVLA's language model; None takes its default.
        compiled: the latent loop's fixed depth runs through torch.compile; options has the depth.
        max_batch: of batches that will come; a compiled policy sees every size of them before the first robot.
        gpu_share: GPUs that it takes where its device is "cuda".
    """

    checkpoint: str
    digest: str
    device: str
    precision: str | None
    threads: int
    options: dict[str, Any] = field(default_factory=dict)
    attention: str | None = None
    compiled: bool = False
    max_batch: int = 1
    gpu_share: float = 1.0


class PolicyReplica:
    """One policy. `problem` says if it can't decide: if that were raised, Serve would start it again and again."""

    def __init__(self, plan: PolicyPlan) -> None:
        self._plan = plan
        self._problem: str | None = None
        # Serve calls from threads that change, while a CUDA graph belongs to the thread that recorded it.
        self._thread = ThreadPoolExecutor(1, "policy")
        try:
            self._policy = self._thread.submit(self._load).result()
            self._thread.submit(self._warm_up).result()
        except InputError as error:
            self._problem = str(error)
        except Exception as error:  # told to whoever started the server
            logging.getLogger(__name__).error("the policy can't decide", exc_info=error)
            line = " ".join(f"{type(error).__name__}: {error}".split())
            self._problem = f"checkpoint {plan.checkpoint} can't decide here: {line[:300]}"

    def _load(self) -> AvaVlaPolicy:
        plan = self._plan
        torch.set_num_threads(plan.threads)
        dtype = None if plan.precision is None else dtype_of(plan.precision)
        loaded = load_checkpoint(plan.checkpoint, device=plan.device, dtype=dtype)
        if loaded.digest != plan.digest:
            raise InputError(f"checkpoint {plan.checkpoint} isn't the one that the server began with: start it anew")
        policy = loaded.policy
        if plan.attention is not None:
            policy.backbone.model.set_attention(plan.attention)
        if plan.compiled:
            assert policy.loop is not None  # jobs/serve.py sees to it
            policy.loop.compile(plan.options["depth"])
        return policy

    def _warm_up(self) -> None:
        """First decisions: what they set up, compile or find to be broken is not for the first robot to wait for.

        Raises:
            InputError: the policy can't decide.
        """
        policy, plan = self._policy, self._plan
        config = policy.config
        size = config.backbone.image_size
        own = [name for name, each in policy.statistics.items() if each.action.q01.shape == (config.action_dim,)]
        if not own:
            raise InputError(
                f"checkpoint {plan.checkpoint}: no data set has {config.action_dim} actions: clone it first"
            )
        blank = Ask(
            np.zeros((config.backbone.num_cameras, size, size, 3), np.uint8), policy.preparation.text("wait").numpy(),
            np.zeros(config.proprio_dim, np.float32), None, own[0],
        )  # fmt: skip
        compiles = plan.compiled or plan.attention == "flex"
        for batch in range(1, 1 + (plan.max_batch if compiles else 1)):
            for answer in self._decide([blank] * batch):
                if isinstance(answer, InputError):
                    raise answer

    def problem(self) -> str | None:
        """Why there is no policy, if there is none."""
        return self._problem

    def facts(self) -> PolicyFacts:
        """What the HTTP side must know."""
        policy = self._policy
        belief = policy.initial_belief(1)
        kind = next(parameter.dtype for parameter in policy.backbone.parameters())
        small = isinstance(policy.config.backbone, BackboneConfig)
        return PolicyFacts(
            self._plan.digest, policy.config, policy.statistics,
            torch.cuda.get_device_name() if policy.device.type == "cuda" else "cpu", str(kind).removeprefix("torch."),
            tuple(belief.hidden.shape), tuple(belief.history.shape), self._plan.options,
            None if small else policy.backbone.model.attention, self._plan.compiled,
        )  # fmt: skip

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()

    def decide(self, asks: Sequence[Ask]) -> list[Answer | InputError]:
        """One forward pass for all of them; an error in place of an answer that holds no numbers."""
        if self._problem is not None:  # damaged after the server's start
            raise RuntimeError(self._problem)
        return self._thread.submit(self._decide, asks).result()

    def _decide(self, asks: Sequence[Ask]) -> list[Answer | InputError]:
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
            decision if isinstance(decision, InputError) else Answer(
                decision.actions, BeliefArrays(*(np.array(part.cpu()) for part in decision.belief)),
                decision.latent_steps, decision.exit_scores, decision.milliseconds,
            )
            for decision in decide_prepared(policy, prepared, **self._plan.options)
        ]  # fmt: skip
