"""The latent loop (arXiv 2606.15099, section 3): think step by step, stop each sample when the gate says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avavla_ray.errors import InputError
from avavla_ray.policy.config import LatentConfig
from avavla_ray.policy.float32 import float32_island
from avavla_ray.policy.reasoning import (
    ExitGate,
    Surroundings,
    Transition,
    UpdatePolicy,
    clamped_entropy,
    exit_log_prob,
    gaussian_log_prob,
)
from avavla_ray.policy.types import LatentContext, LatentTrace


class _Shared(NamedTuple):
    """What all steps of a decision read of its observation; token (B, W) is psi's in the update policy."""

    token: Tensor
    around: Surroundings

    def of(self, rows: Tensor) -> _Shared:
        return _Shared(self.token[rows], Surroundings(*(part[rows] for part in self.around)))


class LatentLoop(nn.Module):
    """Update policy, transition and exit gate, and how they are run; in float32 whatever surrounds it."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.update_policy = UpdatePolicy(config)
        self.transition = Transition(config)
        self.exit_gate = ExitGate(config)
        self._compiled: dict[int, Callable[..., LatentTrace]] = {}

    @float32_island
    def context(self, encoding: Tensor) -> LatentContext:
        """What the loop reads of an observation, from psi (B, E)."""
        return LatentContext(encoding, self.transition.project(encoding))

    @float32_island
    def unroll(self, context: LatentContext, z0: Tensor, steps: int, *, noise: Tensor | None = None) -> Tensor:
        """A fixed number of steps, differentiable: (B, steps + 1, Z).

        Args:
            noise: (B, steps or more, U) standard normals of reparameterised updates; None takes their means.
        """
        shared, states = self._share(context), [z0]
        for k in range(steps):
            u, log_std = self.update_policy(states[-1], token=shared.token)
            if noise is not None:
                u = u + log_std.exp() * noise[:, k]
            states.append(self.transition(states[-1], u, shared.around))
        return torch.stack(states, dim=1)

    @float32_island
    def think(
        self,
        context: LatentContext,
        z0: Tensor,
        *,
        steps: int,
        exit_threshold: float | Tensor | None,
        noise: Tensor | None = None,
        exits: Tensor | None = None,
    ) -> LatentTrace:
        """At most `steps` steps; a sample leaves as soon as its gate score exceeds `exit_threshold`.

        Samples that have left are taken out of the batch, so that they cost nothing more, and the loop ends with the
        last of them. With `exit_threshold` None, or 1 which no score exceeds, nobody leaves early; one of (B, K - 1)
        is for each step of each sample.

        Args:
            noise: (B, K, U) standard normals of the update actions; None takes their means.
            exits: (B, K) uniforms; samples then leave by chance, with their gate score's probability.
        """
        if steps == 0:
            return empty_trace(self.config, z0)
        if exits is not None:
            return self._until_exit(context, z0, noise, steps, exits, drawn=True)
        if isinstance(exit_threshold, Tensor) or (exit_threshold is not None and exit_threshold < 1):
            return self._until_exit(context, z0, noise, steps, exit_threshold)
        if steps in self._compiled and not torch.is_grad_enabled():
            return self._compiled[steps](context, z0, noise)
        return self._to_depth(context, z0, noise, steps)

    @float32_island
    def retrace(
        self, context: LatentContext, z0: Tensor, u: Tensor, steps: Tensor, *, uniform: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Go a stored trajectory again, differentiable: z0 (B, Z), updates u (B, K, U), steps taken (B,).

        Args:
            uniform: call every part as often whatever the steps, as ranks must that gather its weights together.

        Returns:
            z (B, K + 1, Z), log-probabilities and entropies of the updates and the gate's logits after them, (B, K)
            each. Samples that have left stay where they are; their numbers past `steps` mean nothing.
        """
        shared, states = self._share(context), [z0]
        log_probs, entropies = u.new_zeros(u.shape[:2]), u.new_zeros(u.shape[:2])
        for k in range(u.shape[1]):
            goes_on = steps > k
            rows = torch.arange(len(z0), device=z0.device) if uniform else goes_on.nonzero()[:, 0]
            if len(rows) == 0:
                states.append(states[-1])
                continue
            here, z = shared.of(rows), states[-1][rows]
            mean, log_std = self.update_policy(z, token=here.token)
            log_probs = log_probs.index_put((rows, rows.new_tensor(k)), gaussian_log_prob(u[rows, k], mean, log_std))
            entropies = entropies.index_put((rows, rows.new_tensor(k)), clamped_entropy(log_std))
            moved = torch.where(goes_on[rows, None], self.transition(z, u[rows, k], here.around), z)
            states.append(states[-1].index_copy(0, rows, moved))
        z = torch.stack(states, dim=1)
        return z, log_probs, entropies, self.exit_gate(z[:, 1:])

    def compile(self, steps: int | None = None, **options: Any) -> None:
        """From now on `think` takes a fixed number of steps through torch.compile; with CUDA, as one CUDA graph.

        Depths that end early, gradients, copies and pickles of the module keep to plain PyTorch. The batch is dynamic:
        at most four graphs are compiled a depth (a batch of one or of more, of means or of draws), when they are first
        needed. A CUDA graph is recorded for every batch size that comes, which compiles nothing.

        Args:
            steps: the depth to compile, by default K. Call again for another.
            options: to torch.compile, over fullgraph, and mode "reduce-overhead" on CUDA.

        Raises:
            InputError: steps outside 1..K.
        """
        depth = self.config.max_steps if steps is None else steps
        if not 1 <= depth <= self.config.max_steps:
            raise InputError(f"steps {depth} to compile: expected 1..{self.config.max_steps}")
        cuda = next(self.parameters()).is_cuda
        options = {"fullgraph": True, "mode": "reduce-overhead" if cuda else None} | options

        def fixed(context: LatentContext, z0: Tensor, noise: Tensor | None) -> LatentTrace:
            return self._to_depth(context, z0, noise, depth)

        # PyTorch keeps 8 graphs a code object and refuses more: each depth of each loop has one of its own.
        fixed.__code__ = fixed.__code__.replace()
        think = torch.compile(fixed, **options)

        def replay(context: LatentContext, z0: Tensor, noise: Tensor | None) -> LatentTrace:
            context, z0 = LatentContext(*map(_any_batch, context)), _any_batch(z0)
            noise = None if noise is None else _any_batch(noise)
            if not cuda:
                return think(context, z0, noise)
            torch.compiler.cudagraph_mark_step_begin()
            # The next replay writes its results to the same memory.
            return LatentTrace(*(part.clone() for part in think(context, z0, noise)))

        self._compiled[depth] = replay

    def __getstate__(self) -> dict[str, Any]:
        # A copy that kept them would think with the weights of the original.
        return self.__dict__ | {"_compiled": {}}

    def _share(self, context: LatentContext) -> _Shared:
        return _Shared(self.update_policy.encoding(context.encoding), self.transition.surroundings(*context))

    def _step(self, shared: _Shared, z: Tensor, noise: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
        """z_k (B, Z), noise (B, U) -> z' (B, Z), and a record (B, Z + 1 + 3U): z', exit logit, u, mean, log std."""
        mean, log_std = self.update_policy(z, token=shared.token)
        u = mean if noise is None else mean + log_std.exp() * noise
        z = self.transition(z, u, shared.around)
        return z, torch.cat([z, self.exit_gate(z, k + 1)[:, None], u, mean, log_std], dim=1)

    def _to_depth(self, context: LatentContext, z0: Tensor, noise: Tensor | None, steps: int) -> LatentTrace:
        """Exactly `steps` steps, without control flow that depends on data."""
        shared, z, records = self._share(context), z0, []
        for k in range(steps):
            z, record = self._step(shared, z, None if noise is None else noise[:, k], k)
            records.append(record)
        return self._trace(z0, torch.stack(records, dim=1), torch.full_like(z0[:, 0], steps, dtype=torch.int64))

    def _until_exit(
        self, context: LatentContext, z0: Tensor, noise: Tensor | None, steps: int, threshold: float | Tensor,
        drawn: bool = False,
    ) -> LatentTrace:  # fmt: skip
        """Until the score exceeds the threshold: one for all, or (B, K - 1 or more), for each step of each sample."""
        shared, z, records = self._share(context), z0, []
        taken = torch.full_like(z0[:, 0], steps, dtype=torch.int64)
        rows: Tensor | None = None  # of the batch that are still thinking; None for all of them
        for k in range(steps):
            here = None if noise is None else noise[:, k] if rows is None else noise[rows, k]
            z, record = self._step(shared, z, here, k)
            score = self.exit_gate.score(record[:, self.config.width])
            if rows is not None:
                record = record.new_zeros(len(z0), record.shape[1]).index_copy_(0, rows, record)
            records.append(record)
            if k + 1 == steps:
                break
            limit = threshold
            if isinstance(threshold, Tensor):
                limit = threshold[:, k] if rows is None else threshold[rows, k]
            stays = score <= limit
            depth = torch.where(stays, steps, k + 1)
            if rows is None:
                taken = depth
            else:
                taken[rows] = depth
            staying = stays.nonzero()[:, 0]  # the one place of a step where the device is waited for
            if len(staying) == len(z):
                continue
            if len(staying) == 0:
                break
            rows = staying if rows is None else rows[staying]
            z, shared = z[staying], shared.of(staying)
        return self._trace(z0, torch.stack(records, dim=1), taken, drawn=drawn)

    def _trace(self, z0: Tensor, records: Tensor, taken: Tensor, drawn: bool = False) -> LatentTrace:
        """Records (B, n, Z + 1 + 3U) of n <= K steps, steps taken (B,) -> the trace, padded to K."""
        n, K = records.shape[1], self.config.max_steps
        z, logit, u, mean, log_std = records.split([z0.shape[1], 1, *(3 * [self.config.update_dim])], dim=-1)
        valid = torch.arange(n, device=z0.device) < taken[:, None]
        logit = F.pad(logit[..., 0], (0, K - n))
        return LatentTrace(
            z=F.pad(torch.cat([z0[:, None], z], dim=1), (0, 0, 0, K - n)),
            u=F.pad(u, (0, 0, 0, K - n)),
            log_prob=F.pad(gaussian_log_prob(u, mean, log_std).where(valid, 0.0), (0, K - n)),
            entropy=F.pad(clamped_entropy(log_std).where(valid, 0.0), (0, K - n)),
            exit_score=F.pad(self.exit_gate.score(logit[:, :n]).where(valid, 0.0), (0, K - n)),
            exit_log_prob=exit_log_prob(logit, taken) if drawn else torch.zeros_like(logit),
            steps=taken,
        )


def _any_batch(part: Tensor) -> Tensor:
    """The same tensor, for a compiler to take its first dimension as dynamic; only a batch of one is its own case."""
    part = part.detach()  # an object of its own, since the mark stays on it
    if len(part) > 1:
        torch._dynamo.mark_dynamic(part, 0)
    return part


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
        exit_log_prob=z0.new_zeros(B, K),
        steps=torch.zeros(B, dtype=torch.int64, device=z0.device),
    )


def final_latent(trace: LatentTrace) -> Tensor:
    """(B, Z): the state that each sample left the loop with."""
    return trace.z[torch.arange(len(trace.steps), device=trace.steps.device), trace.steps]
