"""The parts of latent reasoning (arXiv 2606.15099, section 3): update policy, transition, exit gate, value.

All of them compute in float32 (policy/float32.py): likelihood ratios of PPO compare numbers that a lower precision
would blur.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avavla_ray.errors import InputError
from avavla_ray.policy.config import LatentConfig
from avavla_ray.policy.float32 import float32_island
from avavla_ray.policy.gate_map import GateMap
from avavla_ray.policy.transformer import Block, MultiHeadAttention

_LOG_2PI = math.log(2 * math.pi)
# exp(-30) is still positive and 1 / (1 + exp(-30)) rounds to exactly 1 in float32, so that a threshold of 0 always
# exits and a threshold of 1 never does.
_LARGEST_LOGIT = 30.0


def gaussian_log_prob(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of u (..., U) under a diagonal Gaussian, summed over U; float32.

    Summed in float64: PPO exponentiates differences of these sums, which are tens of times larger than they are.
    """
    scaled = (u - mean) * (-log_std).exp()
    return (-0.5 * scaled.double().square() - log_std - 0.5 * _LOG_2PI).sum(dim=-1).float()


def clamped_entropy(log_std: Tensor) -> Tensor:
    """Differential entropy per dimension, clamped at 0 and averaged over U: shrinking below it earns nothing."""
    return (log_std + 0.5 * (1 + _LOG_2PI)).clamp_min(0.0).mean(dim=-1)


def exit_log_prob(logit: Tensor, steps: Tensor) -> Tensor:
    """Log-probability of each drawn exit decision of a trajectory.

    Args:
        logit: (B, K), of the gate after each latent step. steps: (B,), taken; whoever took K was not asked at the last.

    Returns:
        (B, K): of having stayed after steps before the last one taken, of having left after that; zero elsewhere.
    """
    K = logit.shape[1]
    logit = logit.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    step = torch.arange(1, K + 1, device=logit.device)
    asked = (step <= steps[:, None]) & (step < K)
    chosen = torch.where(step == steps[:, None], logit, -logit)
    return torch.where(asked, F.logsigmoid(chosen), 0.0)


class UpdatePolicy(nn.Module):
    """pi_phi(u | z, psi): a transformer over the two tokens z and psi, out of it a diagonal Gaussian over u."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        W = config.reasoner_width
        self.latent = nn.Linear(config.width, W)
        self.encoding = nn.Linear(config.encoding_width, W)
        self.kind = nn.Parameter(0.02 * torch.randn(2, W))
        self.blocks = nn.ModuleList(
            Block(W, config.reasoner_heads, mlp_ratio=2.0) for _ in range(config.reasoner_layers)
        )
        self.norm = nn.LayerNorm(W)
        self.mean = nn.Linear(W, config.update_dim)
        self.log_std = nn.Linear(W, config.update_dim)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        nn.init.zeros_(self.log_std.weight)
        nn.init.constant_(self.log_std.bias, config.log_std_init)

    @float32_island
    def forward(self, z: Tensor, encoding: Tensor | None = None, token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (B, Z), psi (B, E) -> mean and log standard deviation, (B, U) each.

        Args:
            token: (B, reasoner width), `self.encoding(psi)` in place of psi where many steps share an observation.
        """
        token = self.encoding(encoding) if token is None else token
        x = torch.stack([token, self.latent(z)], dim=1) + self.kind
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.norm(self.blocks[-1](x, last=1)[:, 0])
        return self.mean(x), self.log_std(x).clamp(self.config.log_std_min, self.config.log_std_max)


class Surroundings(NamedTuple):
    """What a transition reads of an observation, the same at every step.

    gates (B, 3H): psi's share of the GRU's input. keys, values (B, heads, O, Z / heads): of the observation tokens.
    """

    gates: Tensor
    keys: Tensor
    values: Tensor


class SteadyInputCell(nn.GRUCell):
    """A GRU cell of which the input's tail stays the same from step to step, and so is multiplied only once."""

    def steady(self, tail: Tensor) -> Tensor:
        """The input's last columns (B, T) -> their share of the gates, biases included (B, 3H)."""
        # As a call of the module: under ZeRO 3 it has its weights only then.
        return self(tail, None, None)

    def forward(self, head: Tensor, hidden: Tensor | None, steady: Tensor | None) -> Tensor:  # type: ignore[override]
        """The input's first columns (B, I - T), hidden (B, H), steady (B, 3H) -> (B, H), as nn.GRUCell."""
        if hidden is None or steady is None:
            return F.linear(head, self.weight_ih[:, -head.shape[1] :], self.bias_ih)
        H = self.hidden_size
        given = steady + F.linear(head, self.weight_ih[:, : head.shape[1]])
        kept = F.linear(hidden, self.weight_hh, self.bias_hh)
        reset, update = torch.sigmoid(given[:, : 2 * H] + kept[:, : 2 * H]).chunk(2, dim=1)
        new = torch.tanh(given[:, 2 * H :] + reset * kept[:, 2 * H :])
        return new + update * (hidden - new)


class Transition(nn.Module):
    """f_theta: z_{k+1} = LayerNorm(z_k + gate(u) * delta).

    delta comes from a GRU cell (input [z, psi], hidden state from u) and from z's attention over the projected
    observation tokens.
    """

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        Z, E, U, H = config.width, config.encoding_width, config.update_dim, config.transition_hidden
        self.tokens = nn.Linear(E, config.observation_tokens * Z)
        self.hidden = nn.Linear(U, H)
        self.cell = SteadyInputCell(Z + E, H)
        self.delta = nn.Linear(H, Z)
        self.cross_attention = MultiHeadAttention(Z, config.transition_heads)
        self.gate = nn.Sequential(nn.Linear(U, H), nn.GELU(approximate="tanh"), nn.Linear(H, Z))
        self.norm = nn.LayerNorm(Z)

    def project(self, encoding: Tensor) -> Tensor:
        """psi (B, E) -> the observation tokens (B, O, Z) that z attends to."""
        return self.tokens(encoding).view(len(encoding), self.config.observation_tokens, -1)

    def surroundings(self, encoding: Tensor, tokens: Tensor) -> Surroundings:
        """psi (B, E) and observation tokens (B, O, Z) -> what the steps share."""
        keys, values = self.cross_attention.keys_values(tokens)
        return Surroundings(self.cell.steady(encoding), keys.contiguous(), values.contiguous())

    def forward(self, z: Tensor, u: Tensor, around: Surroundings) -> Tensor:
        """z (B, Z), u (B, U) -> z' (B, Z)."""
        memory = self.cell(z, torch.tanh(self.hidden(u)), around.gates)
        seen = self.cross_attention.attend(z[:, None], around.keys, around.values)[:, 0]
        return self.norm(z + torch.sigmoid(self.gate(u)) * (self.delta(memory) + seen))


class LogitMap(nn.Module):
    """A `GateMap` of tensors. Its knots are no weights: they come with the configuration."""

    def __init__(self, given: GateMap) -> None:
        super().__init__()
        x, y = (torch.tensor(part, dtype=torch.float32) for part in (given.logits, given.calibrated))
        outside = torch.tensor([given.slope])
        self.x: Tensor
        self.y: Tensor
        self.slopes: Tensor
        self.ceiling: Tensor
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("y", y, persistent=False)
        self.register_buffer("slopes", torch.cat([outside, y.diff() / x.diff(), outside]), persistent=False)
        self.register_buffer("ceiling", torch.cat([y, torch.tensor([torch.inf])]), persistent=False)

    def forward(self, logit: Tensor) -> Tensor:
        """Logits (...) -> calibrated logits (...), in the same order to the last bit."""
        line = torch.bucketize(logit.detach().contiguous(), self.x)
        start = (line - 1).clamp_min(0)
        mapped = self.y[start] + (logit - self.x[start]) * self.slopes[line]
        # Rounding must not carry a logit beyond the next knot, where the next line begins.
        return torch.where(mapped > self.ceiling[line], self.ceiling[line], mapped)


class ExitGate(nn.Module):
    """g_omega: a residual MLP that says how sure it is that more thinking would not help.

    What post-calibration made of its logits (`LatentConfig.gate_maps`) is part of it, wherever it is asked.
    """

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        H = config.gate_hidden
        self.max_steps = config.max_steps
        self.enter = nn.Linear(config.width, H)
        self.residual = nn.Sequential(nn.LayerNorm(H), nn.Linear(H, H), nn.GELU(approximate="tanh"), nn.Linear(H, H))
        self.leave = nn.Sequential(nn.LayerNorm(H), nn.Linear(H, 1))
        # Before calibration the score is 1/2 everywhere, under the default threshold: no exit by accident.
        nn.init.zeros_(self.leave[1].weight)
        nn.init.zeros_(self.leave[1].bias)
        self.maps = nn.ModuleList(LogitMap(each) for each in config.gate_maps)

    @float32_island
    def forward(self, z: Tensor, step: int | None = None) -> Tensor:
        """z (..., Z) -> logits (...).

        Args:
            step: latent steps that led to z, 1..K. Where a map is for each of them, it must be given, or z must be
                (..., K, Z), the states after all of them. Step K, after which nobody is asked, has the map of K - 1.

        Raises:
            InputError: it is not known after which step each state comes, and that matters.
        """
        x = self.enter(z)
        logit = self.leave(x + self.residual(x)).squeeze(-1)
        if len(self.maps) == 0:
            return logit
        if len(self.maps) == 1:
            return self.maps[0](logit)
        if step is not None:
            return self.maps[min(step, self.max_steps - 1) - 1](logit)
        if logit.ndim == 0 or logit.shape[-1] != self.max_steps:
            raise InputError(
                f"this gate is calibrated for each latent step: give the states after all {self.max_steps} of them"
            )
        maps = [*self.maps, self.maps[-1]]
        return torch.stack([one(part) for one, part in zip(maps, logit.unbind(-1), strict=True)], dim=-1)

    @staticmethod
    def score(logit: Tensor) -> Tensor:
        """Logits -> scores in (0, 1]."""
        return torch.sigmoid(logit.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT))


class ValueHead(nn.Module):
    """V(z): expected discounted return from a latent state."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        H = config.value_hidden
        self.layers = nn.Sequential(
            nn.Linear(config.width, H), nn.GELU(approximate="tanh"),
            nn.Linear(H, H), nn.GELU(approximate="tanh"), nn.Linear(H, 1),
        )  # fmt: skip

    @float32_island
    def forward(self, z: Tensor) -> Tensor:
        """z (..., Z) -> (...)."""
        return self.layers(z).squeeze(-1)
