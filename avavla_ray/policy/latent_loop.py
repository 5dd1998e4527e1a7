"""The latent loop (arXiv 2606.15099, section 3): think step by step, stop each sample when the gate says so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import LatentConfig
from avavla_ray.policy.reasoning import ExitGate, Transition, UpdatePolicy, clamped_entropy, gaussian_log_prob
from avavla_ray.policy.types import LatentContext, LatentTrace


class LatentLoop(nn.Module):
    """Update policy, transition and exit gate, and how they are run."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.update_policy = UpdatePolicy(config)
        self.transition = Transition(config)
        self.exit_gate = ExitGate(config)

    def context(self, encoding: Tensor) -> LatentContext:
        """What the loop reads of an observation, from psi (B, E)."""
        return LatentContext(encoding, self.transition.project(encoding))

    def unroll(self, context: LatentContext, z0: Tensor, steps: int, *, sample: bool = False) -> Tensor:
        """A fixed number of steps, differentiable: (B, steps + 1, Z). Updates are means, or reparameterised draws."""
        states = [z0]
        for _ in range(steps):
            u, log_std = self.update_policy(states[-1], context.encoding)
            if sample:
                u = u + log_std.exp() * torch.randn_like(u)
            states.append(self.transition(states[-1], u, *context))
        return torch.stack(states, dim=1)

    def think(
        self,
        context: LatentContext,
        z0: Tensor,
        *,
        steps: int,
        exit_threshold: float | None,
        sample: bool,
        generator: torch.Generator | None,
    ) -> LatentTrace:
        """At most `steps` steps; a sample leaves as soon as its gate score exceeds `exit_threshold`.

        Samples that have left are taken out of the batch, so that they cost nothing more, and the loop ends with the
        last of them. With `exit_threshold` None nobody leaves early.
        """
        config, B = self.config, len(z0)
        trace = empty_trace(config, z0)
        # Drawn for the whole batch at once, so that who leaves when does not change anybody's noise.
        noise = torch.zeros_like(trace.u)
        if sample:
            noise = torch.randn(trace.u.shape, generator=generator, device=z0.device, dtype=z0.dtype)
        rows = torch.arange(B, device=z0.device)
        z = z0
        for k in range(steps):
            mean, log_std = self.update_policy(z, context.encoding)
            u = mean + log_std.exp() * noise[rows, k] if sample else mean
            z = self.transition(z, u, *context)
            score = self.exit_gate.score(self.exit_gate(z))
            trace.u[rows, k] = u
            trace.log_prob[rows, k] = gaussian_log_prob(u, mean, log_std)
            trace.entropy[rows, k] = clamped_entropy(log_std)
            trace.z[rows, k + 1] = z
            trace.exit_score[rows, k] = score
            trace.steps[rows] = k + 1
            if exit_threshold is None:
                continue
            staying = (score <= exit_threshold).nonzero().squeeze(1)
            if len(staying) == 0:
                break
            if len(staying) < len(rows):
                rows, z = rows[staying], z[staying]
                context = LatentContext(context.encoding[staying], context.tokens[staying])
        return trace


def empty_trace(config: LatentConfig, z0: Tensor) -> LatentTrace:
    """The trace of a decision that has taken no latent step yet."""
    B, K = len(z0), config.max_steps
    states = z0.new_zeros(B, K + 1, config.width)
    states[:, 0] = z0
    return LatentTrace(
        z=states,
        u=z0.new_zeros(B, K, config.update_dim),
        log_prob=z0.new_zeros(B, K),
        entropy=z0.new_zeros(B, K),
        exit_score=z0.new_zeros(B, K),
        steps=torch.zeros(B, dtype=torch.int64, device=z0.device),
    )


def final_latent(trace: LatentTrace) -> Tensor:
    """(B, Z): the state that each sample left the loop with."""
    return trace.z[torch.arange(len(trace.steps), device=trace.steps.device), trace.steps]
