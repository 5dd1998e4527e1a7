"""`AvaVlaPolicy`: active visual attention (arXiv 2511.18960) and latent reasoning with early exit (2606.15099) in one.

A decision, in the order of `AvaVlaPolicy.decide`:

    observation -> visual tokens, psi, z_0
    z_0 -> latent loop -> z
    visual tokens, belief -> AVA weights (an attention bias)
    [visual, text + z, proprio, action + z] -> transformer -> chunk, and the belief for the next decision
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from avavla_ray.errors import InputError, check_fraction
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.action_head import ActionTokens, LatentConditioning
from avavla_ray.policy.action_noise import ActionNoise
from avavla_ray.policy.attention import ActiveVisualAttention, log_bias, prune
from avavla_ray.policy.backbone import Backbone, Reading
from avavla_ray.policy.config import PolicyConfig, check_config, check_depth
from avavla_ray.policy.encoding import ObservationEncoder
from avavla_ray.policy.latent_loop import LatentLoop, empty_trace, final_latent
from avavla_ray.policy.parts import make_backbone, parameter_groups
from avavla_ray.policy.precision import dtype_of
from avavla_ray.policy.preparation import Preparation
from avavla_ray.policy.reasoning import ValueHead, clamped_entropy, gaussian_log_prob
from avavla_ray.policy.thresholds import Threshold, exit_limits
from avavla_ray.policy.types import Belief, Decision, DecisionBatch, Draws, LatentContext, PolicyInputs, Replay
from avavla_ray.timing import span


class _Observed(NamedTuple):
    """Observation side of a decision: visual (B, N, D), the instruction, proprio (B, 1, D) or None, the belief that is
    used, psi (B, E) and z_0 (B, Z)."""

    visual: Tensor
    text: Reading
    proprio: Tensor | None
    belief: Belief
    encoding: Tensor
    z0: Tensor


class AvaVlaPolicy(nn.Module):
    """From (observation, belief) to (action chunk, belief, latent trace), without a state of its own. See
    policy/config.py.

    Args:
        backbone: the module under the policy, where it exists already; see `make_backbone`.

    Attributes:
        statistics: of the data sets that the weights were trained on, by name; empty until somebody says so. Only
            `act` needs them.

    Raises:
        InputError: the configuration is inconsistent.
    """

    def __init__(self, config: PolicyConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.statistics: dict[str, Statistics] = {}
        self.backbone = make_backbone(config) if backbone is None else backbone
        self.attention = ActiveVisualAttention(config.attention, config.backbone) if config.attention.enabled else None
        self.action_tokens = ActionTokens(config)
        self.conditioning = LatentConditioning(config) if config.latent.conditioning else None
        visual_width = config.backbone.num_cameras * self.seam.pooled_width
        self.encoder = ObservationEncoder(config.latent, visual_width, config.backbone.width, config.proprio_dim)
        self.loop = LatentLoop(config.latent) if config.latent.enabled else None
        self.value_head = ValueHead(config.latent)
        noise = config.action_noise
        self.action_noise = None if noise is None else ActionNoise(config.action_dim, noise)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, device: torch.device | str = "cpu", precision: str | None = None
    ) -> AvaVlaPolicy:
        """A policy that is ready to `act`, in evaluation mode.

        Args:
            precision: of the backbone, "float32" or "bfloat16"; None takes the files'.

        Raises:
            InputError: there is no such checkpoint, or it is damaged or foreign; an unknown precision.
        """
        from avavla_ray.policy.checkpoint import load_checkpoint  # which builds policies

        return load_checkpoint(path, device=device, dtype=precision and dtype_of(precision)).policy

    @property
    def seam(self) -> Backbone:
        """The backbone as what the policy asks of it."""
        return cast(Backbone, self.backbone)

    @property
    def device(self) -> torch.device:
        return self.value_head.layers[-1].weight.device

    @functools.cached_property
    def preparation(self) -> Preparation:
        """From pictures and words to this policy's tensors. Raises InputError for a policy without a tokenizer."""
        return Preparation(self.config)

    def set_precision(self, precision: str) -> None:
        """Run the backbone in "float32" or "bfloat16". The rest is a float32 island, see policy/precision.py."""
        self.seam.set_precision(dtype_of(precision))

    # Acting

    def act(
        self,
        images: Sequence[np.ndarray],
        instruction: str,
        proprio: np.ndarray | None = None,
        belief: Belief | None = None,
        *,
        unnorm_key: str | None = None,
        **options: Any,
    ) -> Decision:
        """One decision of a robot, from what its cameras give to what its controller takes.

        Args:
            images: one (H, W, 3) uint8 RGB picture a camera, in the order of the training data, any size.
            proprio: (P,) in the data's units. belief: that of the episode's previous decision; None begins one.
            unnorm_key: data set whose units are meant, where the checkpoint knows several.
            options: of `decide`: exit_threshold, depth, keep_ratio, draws.

        Raises:
            InputError: names the field that is wrong, what was expected and what came.
        """
        from avavla_ray.policy.robot import Request, act_batch  # which stands on this class

        return act_batch(self, [Request(images, instruction, proprio, belief, unnorm_key)], **options)[0]

    def initial_belief(self, batch: int, device: torch.device | str | None = None) -> Belief:
        """Zeros: what an episode starts with."""
        config = self.config
        return Belief(
            torch.zeros(batch, config.action_tokens, config.backbone.width, device=device),
            torch.zeros(batch, config.latent.width, device=device),
        )

    @torch.no_grad()
    def decide(
        self,
        inputs: PolicyInputs,
        belief: Belief,
        *,
        exit_threshold: Threshold | None = None,
        depth: int | None = None,
        keep_ratio: float | None = None,
        draws: Draws | None = None,
    ) -> DecisionBatch:
        """Decide for a batch, each sample thinking as long as it needs.

        Args:
            exit_threshold: stop when the gate exceeds it; one for all, or for each latent step 1..K-1, or a row of
                those for each sample (B, K-1). None takes the configuration's.
            depth: exactly so many latent steps instead, whatever the gate says; 0 acts on z_0.
            keep_ratio: share of visual tokens that stay in the sequence; None takes the configuration's.
            draws: draw update actions, as rollouts for PPO do, instead of taking their means; and chunk and exits
                where their randomness is given too. With a depth, or without early exit, exits are not drawn.

        Raises:
            InputError: threshold or ratio outside [0, 1], another number of thresholds, depth outside 0..K; a threshold
                for a policy without a latent loop, a ratio below 1 for one without AVA, a drawn chunk from one without
                action noise.
        """
        config = self.config
        if exit_threshold is not None and self.loop is None:
            raise InputError(f"exit threshold {exit_threshold}: this policy has no latent loop to leave, give none")
        if keep_ratio is not None and keep_ratio != 1 and self.attention is None:
            raise InputError(f"keep ratio {keep_ratio}: this policy has no AVA to choose visual tokens by, give none")
        threshold = config.latent.exit_threshold if exit_threshold is None else exit_threshold
        keep = config.attention.keep_ratio if keep_ratio is None else keep_ratio
        limits = exit_limits(threshold, len(inputs.proprio), config.latent.max_steps, self.device)
        check_fraction("keep ratio", keep)
        if depth is not None:
            check_depth(config, depth)
        if draws is not None and draws.action is not None and self.action_noise is None:
            raise InputError("this policy draws no chunks: give it noise (policy/action_noise.py), or draw none")
        fixed = depth is not None or not config.latent.early_exit
        draws = None if draws is None else Draws(*(None if part is None else part.to(self.device) for part in draws))
        with self._evaluating():
            with span("encode"):
                observed = self._observe(inputs, belief)
            with span("think"):
                if self.loop is None:
                    context = LatentContext(observed.encoding, observed.z0[:, None])
                    trace = empty_trace(config.latent, observed.z0)
                else:
                    context = self.loop.context(observed.encoding)
                    trace = self.loop.think(
                        context,
                        observed.z0,
                        steps=config.latent.max_steps if depth is None else depth,
                        exit_threshold=None if fixed else limits,
                        noise=None if draws is None else draws.latent,
                        exits=None if draws is None or fixed else draws.exit,
                    )
                z = final_latent(trace)
            with span("decode"):
                chunk, hidden, weights = self._decode(observed, z, config.attention.temperature, keep)
            log_prob = chunk.new_zeros(chunk.shape[:2])
            if draws is not None and draws.action is not None and self.action_noise is not None:
                chunk, log_prob = self.action_noise(chunk, normals=draws.action)
        return DecisionBatch(chunk, self._hand_on(hidden, z), context, trace, weights, log_prob)

    def draws(
        self, batch: int, generator: torch.Generator | None = None, *, actions: bool = False, exits: bool = False
    ) -> Draws:
        """Randomness of `batch` sampled decisions, on the generator's device.

        Args:
            actions: for their chunks too. exits: for their exits too.
        """
        config = self.config
        K, device = config.latent.max_steps, None if generator is None else generator.device
        latent = torch.randn(batch, K, config.latent.update_dim, generator=generator, device=device)
        shape = (batch, config.chunk, config.action_dim)
        action = torch.randn(shape, generator=generator, device=device) if actions else None
        return Draws(latent, action, torch.rand(batch, K, generator=generator, device=device) if exits else None)

    @torch.no_grad()
    def initial_latent(self, inputs: PolicyInputs, belief: Belief) -> tuple[LatentContext, Tensor]:
        """Context and z_0 (B, Z) of an observation, without acting: what a bootstrap value needs."""
        with self._evaluating():
            observed = self._observe(inputs, belief)
            if self.loop is None:
                return LatentContext(observed.encoding, observed.z0[:, None]), observed.z0
            return self.loop.context(observed.encoding), observed.z0

    # Learning

    def clone(
        self,
        inputs: PolicyInputs,
        belief: Belief,
        *,
        latent_steps: int,
        temperature: float | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Belief, Tensor]:
        """The differentiable decision of behaviour cloning and latent warm-up.

        Args:
            latent_steps: fixed number of latent steps; 0 bypasses the loop.
            temperature: of the AVA weights; None takes the final one.
            noise: (B, latent_steps or more, U) standard normals of the update actions; None takes their means.

        Returns:
            chunk (B, C, A); the belief to hand on, detached (gradients stop at the decision boundary);
            z (B, latent_steps + 1, Z).

        Raises:
            InputError: the depth is outside 0..K, or the backbone's actions are words, which L1 can't move.
        """
        if self.seam.head is None:
            raise InputError(
                "this model reads its actions off the vocabulary, which has no gradient for L1: import the checkpoint "
                "with --parallel, which gives it OpenVLA-OFT's head"
            )
        check_depth(self.config, latent_steps)
        observed = self._observe(inputs, belief)
        if latent_steps == 0:
            states = observed.z0[:, None]
        else:
            loop = self._loop()
            states = loop.unroll(loop.context(observed.encoding), observed.z0, latent_steps, noise=noise)
        z = states[:, -1]
        if temperature is None:
            temperature = self.config.attention.temperature
        chunk, hidden, _ = self._decode(observed, z, temperature, keep_ratio=1.0)
        return chunk, self._hand_on(hidden.detach(), z.detach()), states

    @torch.no_grad()
    def at_every_depth(
        self, inputs: PolicyInputs, belief: Belief, *, temperature: float | None = None
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Belief]]]:
        """One observation thought about to full depth: what exit calibration compares.

        Returns:
            z (B, K + 1, Z) under mean updates; how to act on a latent state: (B, Z) -> chunk (B, C, A), belief.
        """
        loop, observed = self._loop(), self._observe(inputs, belief)
        states = loop.unroll(loop.context(observed.encoding), observed.z0, self.config.latent.max_steps)
        final = self.config.attention.temperature if temperature is None else temperature

        @torch.no_grad()
        def act(z: Tensor) -> tuple[Tensor, Belief]:
            chunk, hidden, _ = self._decode(observed, z, final, keep_ratio=1.0)
            return chunk, self._hand_on(hidden, z)

        return states, act

    def log_prob_entropy(self, z: Tensor, u: Tensor, encoding: Tensor) -> tuple[Tensor, Tensor]:
        """Replay stored latent steps: z (N, Z), u (N, U), psi (N, E) -> log-probabilities (N,) and entropies (N,)."""
        mean, log_std = self._loop().update_policy(z, encoding)
        return gaussian_log_prob(u, mean, log_std), clamped_entropy(log_std)

    def replay(
        self, inputs: PolicyInputs, belief: Belief, u: Tensor, steps: Tensor, chunk: Tensor, *, uniform: bool = False
    ) -> Replay:
        """Decide again as `decide` once did, differentiable in every weight that had a part in it.

        The latent states are recomputed from the observation with the stored updates, so that the likelihood is that of
        (updates, exits, chunk) given what the policy saw, as in any PPO, and encoder and transition learn as well.

        Args:
            belief: before the decision. u: (B, K, U). steps: (B,). chunk: (B, C, A), as it was drawn.
            uniform: see `LatentLoop.retrace`.

        Raises:
            InputError: a policy without action noise has no likelihood of chunks.
        """
        observed = self._observe(inputs, belief)
        if self.loop is None:
            z = observed.z0[:, None].expand(-1, u.shape[1] + 1, -1)
            log_prob = entropy = logit = u.new_zeros(u.shape[:2])
        else:
            context = self.loop.context(observed.encoding)
            z, log_prob, entropy, logit = self.loop.retrace(context, observed.z0, u, steps, uniform=uniform)
        attention = self.config.attention
        mean, _, _ = self._decode(observed, z[:, -1], attention.temperature, attention.keep_ratio)
        return Replay(z, log_prob, entropy, logit, self.action_log_prob(mean, chunk))

    def action_log_prob(self, mean: Tensor, chunk: Tensor) -> Tensor:
        """Log-probabilities of a drawn chunk's steps around the decoded one: (B, C, A), (B, C, A) -> (B, C).

        Raises:
            InputError: a policy without action noise has no likelihood of chunks.
        """
        if self.action_noise is None:
            raise InputError("this policy draws no chunks: give it noise (policy/action_noise.py)")
        return self.action_noise(mean, chunk=chunk)[1]

    def unroll(self, context: LatentContext, z0: Tensor, steps: int) -> Tensor:
        """z (B, steps + 1, Z) under mean updates, from z0 (B, Z)."""
        return self._loop().unroll(context, z0, steps)

    def gate_logit(self, z: Tensor) -> Tensor:
        """Exit gate before its sigmoid, post-calibrated: (..., Z) -> (...); see `ExitGate.forward`."""
        return self._loop().exit_gate(z)

    def value(self, z: Tensor) -> Tensor:
        """(..., Z) -> (...)."""
        return self.value_head(z)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, by the part it belongs to; see policy/parts.py."""
        return parameter_groups(self)

    # Inside a decision

    def _loop(self) -> LatentLoop:
        if self.loop is None:
            raise InputError("this policy has no latent loop: build it with latent.enabled")
        return self.loop

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.training
        if training:
            self.eval()
        try:
            yield
        finally:
            if training:
                self.train()

    def _hand_on(self, hidden: Tensor, z: Tensor) -> Belief:
        if not self.config.recurrent:
            return Belief(torch.zeros_like(hidden), torch.zeros_like(z))
        return Belief(hidden.float(), z)

    def _observe(self, inputs: PolicyInputs, belief: Belief) -> _Observed:
        if not self.config.recurrent:
            belief = Belief(*(torch.zeros_like(part) for part in belief))
        text = self.seam.read(inputs.text)
        features = self.seam.see(inputs.images, text.mean)
        encoding, z0 = self.encoder(features.pooled.flatten(1), text.mean, inputs.proprio, belief.history)
        return _Observed(features.tokens, text, self.seam.feel(inputs.proprio), belief, encoding, z0)

    def _decode(
        self, observed: _Observed, z: Tensor, temperature: float, keep_ratio: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Final latent (B, Z) -> chunk (B, C, A), hidden (B, M, D), AVA weights (B, N)."""
        visual, belief = observed.visual, observed.belief
        B, N = visual.shape[:2]
        actions, words = self.action_tokens(belief.hidden), observed.text.tokens
        if self.conditioning is not None:
            push = self.conditioning(z)
            actions, words = actions + push, words + push
        bias = index = None
        if self.attention is None:
            weights = visual.new_ones(B, N, dtype=torch.float32)
        else:
            weights = self.attention(visual, observed.text.mean, belief.hidden, temperature)
            visual, kept, index = prune(visual, weights, keep_ratio, self.config.attention.sink_tokens)
            bias = log_bias(kept)
        hidden, output = self.seam.mix(
            visual,
            bias,
            words.to(visual.dtype),
            observed.text.present,
            observed.proprio,
            actions.to(visual.dtype),
            index,
        )
        return self.seam.read_actions(output).float(), hidden, weights
