"""Settings of asynchronous PPO. Frozen, picklable, and light: importing this starts nothing.

Shape letters as in avavla_ray/policy/config.py.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError, check_fraction, check_known
from avavla_ray.files import write_json
from avavla_ray.learning.choices import CORRECTIONS, OVER


@dataclass(frozen=True)
class PPOSettings:
    """Latent-trajectory PPO (arXiv 2606.15099, section 3.3) and its auxiliary losses.

    Attributes:
        train_actions: action-chunk PPO beside that over latent steps: the executed chunk is drawn around the decoded
            one, whole decisions are replayed from what the policy saw, and everything learns that had a part in them.
        action_std: deviation of that draw, in normalised units. learn_action_std: it is a parameter and learns (a
            policy that has learned one keeps it).
        exit_actions: when to stop thinking is drawn from the gate's score and learned from the reward, as any action.
            Off, the threshold decides, and the gate is calibrated or trained as below.
        compute_cost: of a latent step, in the reward: what exit actions weigh another step against.
        group_size: more than 1: so many episodes from each start, and an episode's advantage is how much better it did
            than the others (GRPO); no critic is asked.
        gamma: discount of one environment step. gae_lambda: of one latent step.
        latent_discount: between latent steps of one decision, where no environment time passes.
        lambda_entropy, lambda_delta: weights of the two penalties in the composite reward.
        clip: of the surrogate. importance_limit: truncation of the behaviour-to-proximal weight.
        correction: for data of older weights: "decoupled" PPO, "naive" PPO, or "vtrace"; see learning/ppo.py.
        normalise: advantages over all "decisions", over all "steps", or not at all ("none").
        value_clip: how far a value may go from what it was before the update; None as far as it likes.
        latent_coefficient, action_coefficient, value_coefficient: of the losses.
        epochs: passes over an update's decisions.
        update_decisions: decisions an update waits for. minibatch_decisions: of a step. Both over all ranks.
        target_kl: once the policy has moved so far from where the update began, only critic and gate go on. By its
            chunks where they are learned, else, and where exits are drawn, by its latent steps.
        policy_lr, critic_lr, gate_lr: learning rates of the update policy, the value and the exit gate.
        warm_up_updates: the rate of the policy, and of exits that are drawn, rises from 0 over so many updates, while
            the critic learns what its advantages are worth and Adam what a gradient is like.
        decay_updates: and falls to 0 in a straight line over the run's first so many updates, so that what single
            minibatches have added averages out; 0 leaves it as it is.
        train_gate: train the exit gate beside PPO, by binary cross-entropy on the critic's own exit labels, which moves
            the gate's own parameters only. Off, as in the paper, which calibrates the gate in a separate fourth stage:
            a gate that learns to leave early also ends the practice of thinking on.
        gate_delta, gate_lookahead: a step is exitable where the value gains less than delta over so many steps.
        gate_coefficient: weight of that loss.
        gate_min_explained_variance: the gate learns only in updates whose returns the critic explains so far; a critic
            that knows nothing sees no gain anywhere, and would teach the gate to stop at once.
        demonstration_weight, demonstration_weight_end: weight of the behaviour-cloning loss on demonstrations, falling
            linearly over `demonstration_updates` updates; without demonstrations it does nothing.
        demonstration_streams, demonstration_decisions: episodes side by side, and consecutive decisions of each, in
            one minibatch of demonstrations.
        imitation_weight: of the log-likelihood of chunks that were part of the policy's own successes (self-imitation,
            see successes.py), beside PPO: 1 is as much as an advantage of 1. Goes with train_actions; 0 is none of it.
        imitation_decisions: that a rank keeps for it, 100 KB each with two pictures of 128 pixels, and as many again of
            episodes that have not ended. They are not part of a checkpoint: a resumed run, or a rank that is replaced,
            plays new ones, and none is imitated until every rank has some. imitation_streams: episodes side by side,
            one decision of each in a minibatch, over all ranks.
        max_lag: fragments made by weights more than so many versions old are dropped. 0 is synchronous PPO: nothing is
            played while the learner learns.
        curriculum: play tasks more often whose success is between `curriculum_low` and `curriculum_high`; the others
            get `curriculum_floor` times their share.
        max_refusals: this many updates refused in a row end the run.
        isolate: every simulator in a process of its own, so that its death costs an episode and not a runner; and the
            simulators of a runner step at the same time.
    """

    train_actions: bool = False
    action_std: float = 0.05
    learn_action_std: bool = False
    exit_actions: bool = False
    compute_cost: float = 0.0
    group_size: int = 0
    gamma: float = 0.99
    gae_lambda: float = 0.95
    latent_discount: float = 1.0
    lambda_entropy: float = 0.01
    lambda_delta: float = 0.1
    clip: float = 0.2
    importance_limit: float = 5.0
    correction: str = "decoupled"
    normalise: str = "decisions"
    value_clip: float | None = None
    latent_coefficient: float = 1.0
    action_coefficient: float = 1.0
    value_coefficient: float = 0.5
    epochs: int = 4
    update_decisions: int = 512
    minibatch_decisions: int = 64
    target_kl: float = 0.02
    policy_lr: float = 3e-5
    critic_lr: float = 1e-4
    gate_lr: float = 1e-4
    warm_up_updates: int = 0
    decay_updates: int = 0
    train_gate: bool = False
    gate_delta: float = 0.05
    gate_lookahead: int = 3
    gate_coefficient: float = 1.0
    gate_min_explained_variance: float = 0.1
    demonstration_weight: float = 0.1
    demonstration_weight_end: float = 0.01
    demonstration_updates: int = 200
    demonstration_streams: int = 8
    demonstration_decisions: int = 1
    imitation_weight: float = 0.0
    imitation_decisions: int = 4096
    imitation_streams: int = 64
    max_lag: int = 4
    curriculum: bool = False
    curriculum_low: float = 0.1
    curriculum_high: float = 0.9
    curriculum_floor: float = 0.2
    max_refusals: int = 3
    isolate: bool = True

    def __post_init__(self) -> None:
        for name in ("gamma", "gae_lambda", "latent_discount"):
            check_fraction(name.replace("_", " "), getattr(self, name))
        for name in (
            "epochs",
            "update_decisions",
            "minibatch_decisions",
            "max_refusals",
            "imitation_decisions",
            "imitation_streams",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)} is too small: give at least 1")
        if self.max_lag < 0:
            raise InputError(f"max lag {self.max_lag} is negative: give 0 or more")
        check_known("correction", self.correction, CORRECTIONS)
        check_known("normalisation", self.normalise, OVER)
        for name in ("action_std", "curriculum_floor"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)} is too small: give more than 0")
        if not 0 <= self.curriculum_low <= self.curriculum_high <= 1:
            raise InputError(
                f"curriculum from {self.curriculum_low} to {self.curriculum_high}: give two success rates in order"
            )
        if self.value_clip is not None and not self.value_clip > 0:
            raise InputError(f"value clip {self.value_clip} is too small: give more than 0, or none")
        if self.group_size == 1 or self.group_size < 0:
            raise InputError(f"groups of {self.group_size} compare nothing: give at least 2, or 0 for a critic")
        if self.group_size and self.correction == "vtrace":
            raise InputError("V-trace corrects a critic's targets, and groups have no critic: choose one of the two")
        if self.exit_actions and self.train_gate:
            raise InputError("exit actions train the gate already: leave train gate off, which the recipe may have on")
        if self.group_size and (self.train_gate or self.value_clip is not None):
            raise InputError("groups have no critic: leave train gate and value clip off")
        if self.learn_action_std and not self.train_actions:
            raise InputError("learn action std goes with train actions: give both")
        if self.imitation_weight and not self.train_actions:
            raise InputError("imitation weight goes with train actions: give both, or imitation weight 0")
        for name in ("compute_cost", "clip", "imitation_weight", "warm_up_updates", "decay_updates"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)} is negative: give 0 or more")

    def demonstration_weight_at(self, update: int) -> float:
        """Weight of the behaviour-cloning loss at the `update`-th update, counted from 0."""
        done = min(1.0, update / max(1, self.demonstration_updates))
        return self.demonstration_weight + done * (self.demonstration_weight_end - self.demonstration_weight)

    def pace(self, update: int) -> float:
        """Share of the policy's rate at the `update`-th update, counted from 0."""
        risen = update / self.warm_up_updates if self.warm_up_updates else 1.0
        left = 1.0 - update / self.decay_updates if self.decay_updates else 1.0
        return max(0.0, min(1.0, risen, left))

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]

    @classmethod
    def of(cls, holder: Any) -> PPOSettings:
        """Read the attributes of the same names from `holder` (an AsyncPPOConfig)."""
        return cls(**{name: getattr(holder, name) for name in cls.names()})


RECIPES: dict[str, dict[str, Any]] = {
    # arXiv 2606.15099, table of hyper-parameters: what the defaults above are.
    "paper": {},
    # Minutes on two cores: small updates, so that there are some, a critic that learns in a dozen of them, and a gate
    # to sweep thresholds over without a fourth stage.
    "demo": {
        "update_decisions": 128, "minibatch_decisions": 32, "critic_lr": 1e-3, "train_gate": True,
        "demonstration_weight_end": 0.1,
    },
    # LIBERO on two cores (results/): whole chunks are drawn, so widely that a chunk ends a centimetre elsewhere; what
    # succeeds is known at an episode's end only, twenty to thirty decisions later. A few thousand episodes an hour are
    # few: four times as many decisions are imitated from what succeeded as come anew, which takes the learner about as
    # long as playing them takes two simulators.
    "libero": {
        "train_actions": True, "action_std": 0.25, "update_decisions": 512, "minibatch_decisions": 64, "epochs": 1,
        "policy_lr": 3e-4, "critic_lr": 1e-3, "gamma": 0.995, "gae_lambda": 0.99, "latent_coefficient": 0.2,
        "lambda_entropy": 0.0, "lambda_delta": 0.0, "target_kl": 1.0, "imitation_weight": 1.0,
        "imitation_decisions": 8192, "imitation_streams": 256, "curriculum": True, "warm_up_updates": 5,
    },
    # Minutes on the table-top with the preset of that name: a policy so small that it is moved a lot.
    "tabletop": {
        "train_actions": True, "action_std": 0.8, "update_decisions": 512, "minibatch_decisions": 128, "epochs": 3,
        "policy_lr": 7e-4, "critic_lr": 1e-3, "latent_coefficient": 0.2, "lambda_entropy": 0.0, "lambda_delta": 0.0,
        "target_kl": 10.0,
    },
    # Seconds, for tests.
    "tiny": {
        "update_decisions": 16, "minibatch_decisions": 8, "epochs": 1, "demonstration_streams": 2, "train_gate": True,
    },
}  # fmt: skip


def recipe(name: str, **changes: Any) -> PPOSettings:
    """The named recipe with some settings changed; None changes nothing.

    Args:
        name: of RECIPES, or a file ending in .json or .toml whose "settings" are names and values of `PPOSettings`, as
            jobs/sweep_gae.py writes it.

    Raises:
        InputError: no such recipe, a file that can't be read or knows other settings, or settings that make no sense.
    """
    if name.endswith((".json", ".toml")):
        chosen = _read_recipe(Path(name))
    else:
        check_known("recipe", name, RECIPES)
        chosen = RECIPES[name]
    given = {key: value for key, value in changes.items() if value is not None}
    return PPOSettings(**{**chosen, **given})


def save_recipe(path: Path, settings: PPOSettings, **found: Any) -> None:
    """Write what differs from the defaults, for --recipe.

    Args:
        found: how it was found, for people.
    """
    plain = asdict(PPOSettings())
    changed = {name: value for name, value in asdict(settings).items() if value != plain[name]}
    write_json(path, {"settings": changed, "found": found})


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"recipe {path} can't be read ({error}): give a file of jobs/sweep_gae.py, or a name"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise InputError(f"{path} is no recipe: it has no settings; give a file of jobs/sweep_gae.py, or a name")
    for key in content["settings"]:
        check_known(f"setting in {path}:", key, PPOSettings.names())
    return content["settings"]
