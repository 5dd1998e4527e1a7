"""`AvaVlaPolicy`: active visual attention (arXiv 2511.18960) and latent reasoning with early exit (2606.15099) in one.

A decision, in the order of `AvaVlaPolicy.act`:

    observation -> visual tokens, psi, z_0
    z_0 -> latent loop -> z
    visual tokens, belief -> AVA weights (an attention bias)
    [visual, text + z, proprio, action + z] -> transformer -> chunk, and the belief for the next decision
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from avavla_ray.errors import InputError, check_fraction
from avavla_ray.policy.action_head import ActionTokens, ChunkHead, LatentConditioning
from avavla_ray.policy.attention import ActiveVisualAttention, log_bias, prune
from avavla_ray.policy.backbone import Reading, SmallBackbone
from avavla_ray.policy.config import PolicyConfig, check_config, check_depth
from avavla_ray.policy.encoding import ObservationEncoder
from avavla_ray.policy.latent_loop import LatentLoop, empty_trace, final_latent
from avavla_ray.policy.reasoning import ValueHead, clamped_entropy, gaussian_log_prob
from avavla_ray.policy.types import Belief, Decision, LatentContext, PolicyInputs


class _Observed(NamedTuple):
    """Observation side of a decision: visual (B, N, D), the instruction, proprio (B, 1, D), the belief that is used,
    psi (B, E) and z_0 (B, Z)."""

    visual: Tensor
    text: Reading
    proprio: Tensor
    belief: Belief
    encoding: Tensor
    z0: Tensor


class AvaVlaPolicy(nn.Module):
    """A pure function from (observation, belief) to (action chunk, belief, latent trace). See policy/config.py.

    Raises:
        InputError: the configuration is inconsistent.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        backbone = config.backbone
        self.backbone = SmallBackbone(backbone, config.vocabulary, config.proprio_dim)
        self.attention = ActiveVisualAttention(config.attention, backbone) if config.attention.enabled else None
        self.action_tokens = ActionTokens(config)
        self.conditioning = LatentConditioning(config)
        self.head = ChunkHead(config)
        visual_width = backbone.num_cameras * self.backbone.pooled_width
        self.encoder = ObservationEncoder(config.latent, visual_width, backbone.width, config.proprio_dim)
        self.loop = LatentLoop(config.latent) if config.latent.enabled else None
        self.value_head = ValueHead(config.latent)

    # Acting

    def initial_belief(self, batch: int, device: torch.device | str | None = None) -> Belief:
        """Zeros: what an episode starts with."""
        config = self.config
        return Belief(
            torch.zeros(batch, config.action_tokens, config.backbone.width, device=device),
            torch.zeros(batch, config.latent.width, device=device),
        )

    @torch.no_grad()
    def act(
        self,
        inputs: PolicyInputs,
        belief: Belief,
        *,
        exit_threshold: float | None = None,
        depth: int | None = None,
        keep_ratio: float | None = None,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Decision:
        """Decide for a batch, each sample thinking as long as it needs.

        Args:
            exit_threshold: stop when the gate exceeds it; None takes the configuration's.
            depth: exactly so many latent steps instead, whatever the gate says; 0 acts on z_0.
            keep_ratio: share of visual tokens that stay in the sequence; None takes the configuration's.
            sample: draw the update actions, as rollouts for PPO do, instead of taking their means.

        Raises:
            InputError: threshold or ratio outside [0, 1], depth outside 0..K.
        """
        config = self.config
        threshold = config.latent.exit_threshold if exit_threshold is None else exit_threshold
        keep = config.attention.keep_ratio if keep_ratio is None else keep_ratio
        check_fraction("exit threshold", threshold)
        check_fraction("keep ratio", keep)
        if depth is not None:
            check_depth(config, depth)
        fixed = depth is not None or not config.latent.early_exit
        with self._evaluating():
            observed = self._observe(inputs, belief)
            if self.loop is None:
                context = LatentContext(observed.encoding, observed.z0[:, None])
                trace = empty_trace(config.latent, observed.z0)
            else:
                context = self.loop.context(observed.encoding)
                trace = self.loop.think(
                    context,
                    observed.z0,
                    steps=config.latent.max_steps if depth is None else depth,
                    exit_threshold=None if fixed else threshold,
                    sample=sample,
                    generator=generator,
                )
            z = final_latent(trace)
            chunk, hidden, weights = self._decode(observed, z, config.attention.temperature, keep)
        return Decision(chunk, self._hand_on(hidden, z), context, trace, weights)

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
        sample: bool = False,
    ) -> tuple[Tensor, Belief, Tensor]:
        """The differentiable decision of behaviour cloning and latent warm-up.

        Args:
            latent_steps: fixed number of latent steps; 0 bypasses the loop.
            temperature: of the AVA weights; None takes the final one.
            sample: reparameterised draws of the update actions instead of their means.

        Returns:
            chunk (B, C, A); the belief to hand on, detached (gradients stop at the decision boundary);
            z (B, latent_steps + 1, Z).
        """
        check_depth(self.config, latent_steps)
        observed = self._observe(inputs, belief)
        if latent_steps == 0:
            states = observed.z0[:, None]
        else:
            loop = self._loop()
            states = loop.unroll(loop.context(observed.encoding), observed.z0, latent_steps, sample=sample)
        z = states[:, -1]
        if temperature is None:
            temperature = self.config.attention.temperature
        chunk, hidden, _ = self._decode(observed, z, temperature, keep_ratio=1.0)
        return chunk, self._hand_on(hidden.detach(), z.detach()), states

    def log_prob_entropy(self, z: Tensor, u: Tensor, encoding: Tensor) -> tuple[Tensor, Tensor]:
        """Replay stored latent steps: z (N, Z), u (N, U), psi (N, E) -> log-probabilities (N,) and entropies (N,)."""
        mean, log_std = self._loop().update_policy(z, encoding)
        return gaussian_log_prob(u, mean, log_std), clamped_entropy(log_std)

    def unroll(self, context: LatentContext, z0: Tensor, steps: int) -> Tensor:
        """z (B, steps + 1, Z) under mean updates, from z0 (B, Z)."""
        return self._loop().unroll(context, z0, steps)

    def gate_logit(self, z: Tensor) -> Tensor:
        """Exit gate before its sigmoid: (..., Z) -> (...)."""
        return self._loop().exit_gate(z)

    def value(self, z: Tensor) -> Tensor:
        """(..., Z) -> (...)."""
        return self.value_head(z)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, by the part it belongs to; a part that is switched off has none."""
        parts: dict[str, tuple[nn.Module | None, ...]] = {
            "backbone": (self.backbone,),
            "attention": (self.attention,),
            "action": (self.action_tokens, self.conditioning, self.head),
            "encoder": (self.encoder,),
            "reasoner": (self.loop and self.loop.update_policy,),
            "transition": (self.loop and self.loop.transition,),
            "gate": (self.loop and self.loop.exit_gate,),
            "value": (self.value_head,),
        }
        return {
            name: [parameter for module in modules if module is not None for parameter in module.parameters()]
            for name, modules in parts.items()
        }

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
        features, text = self.backbone.see(inputs.images), self.backbone.read(inputs.text)
        encoding, z0 = self.encoder(features.pooled.flatten(1), text.mean, inputs.proprio, belief.history)
        return _Observed(features.tokens, text, self.backbone.feel(inputs.proprio), belief, encoding, z0)

    def _decode(
        self, observed: _Observed, z: Tensor, temperature: float, keep_ratio: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Final latent (B, Z) -> chunk (B, C, A), hidden (B, M, D), AVA weights (B, N)."""
        visual, belief = observed.visual, observed.belief
        B, N = visual.shape[:2]
        push = self.conditioning(z)
        actions = self.action_tokens(belief.hidden) + push
        bias = None
        if self.attention is None:
            weights = visual.new_ones(B, N)
        else:
            weights = self.attention(visual, observed.text.mean, belief.hidden, temperature)
            visual, kept = prune(visual, weights, keep_ratio, self.config.attention.sink_tokens)
            bias = log_bias(kept)
        hidden, output = self.backbone.mix(
            visual, bias, observed.text.tokens + push, observed.text.present, observed.proprio, actions
        )
        return self.head(output), hidden, weights
