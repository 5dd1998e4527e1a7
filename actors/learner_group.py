"""The learner ranks as one unit behind RLlib's LearnerGroup seam: all of them update, or none does.

RLlib's stock group may send an update to a subset of its learners and give a rank another's shard; ranks that share
collectives can't survive that. Here every call goes to all ranks, and when one dies all are replaced together and
continue from the last snapshot, under a version number that never goes back.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.rllib.core import COMPONENT_LEARNER
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from actors.background import in_background
from actors.batch import deal
from actors.cloning_stream import Demonstrations, never_learned
from actors.engine_files import read_share, write_shares
from actors.learner import Learner, Refusal, Update
from actors.rooms import learner_room
from actors.settings import PPOSettings
from avavla_ray.errors import InputError
from avavla_ray.policy.action_noise import with_action_noise
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.config import BackboneConfig, PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.weights import flatten, load_flat
from avavla_ray.storage.names import named
from avavla_ray.storage.sharing import here

RESTARTS_IN_A_ROW = 3
# A rank that is alive answers within this time after another has failed: the collective that it waits in breaks.
GRACE_S = 60.0


@dataclass
class Outcome:
    """What became of an update.

    Attributes:
        version: of the weights that the group now has.
        weights: reference of their WeightBuffer, where there are new ones to publish.
        metrics: of the update, if it went through. refusal: why it did not. restarted: ranks were lost and replaced.
    """

    version: int
    weights: Any = None
    metrics: dict[str, float] | None = None
    refusal: str | None = None
    restarted: bool = False


def check_trainable(policy: PolicyConfig, checkpoint: str | Path, settings: PPOSettings) -> None:
    """Raise InputError when PPO with these settings can't train the policy of `checkpoint`."""
    if not policy.latent.enabled and not settings.train_actions:
        raise InputError(f"{checkpoint} has no latent loop to train: give one that has, or train its actions")
    if not policy.latent.enabled and (settings.train_gate or settings.exit_actions):
        raise InputError(f"{checkpoint} has no latent loop and so no exits to train: leave them off")
    if settings.exit_actions and not policy.latent.early_exit:
        raise InputError(f"{checkpoint} never leaves early, so no exit is drawn: leave exit actions off")
    if settings.train_actions and not isinstance(policy.backbone, BackboneConfig) and not policy.backbone.head_blocks:
        raise InputError(
            f"{checkpoint} reads its actions off the vocabulary, which has no gradient for chunks: import it with "
            "--parallel, or train latent steps alone: --recipe paper"
        )


class DeepSpeedLearnerGroup(Checkpointable):
    """Learner ranks on DeepSpeed engines.

    Attributes:
        version: of the newest weights; goes up with every update, restart and restore.
        updates: that went through.
        restarts: how often all ranks were replaced.
        policy_config, statistics: of the checkpoint that training starts from, statistics of its `unnorm_key`.
        held_out: names of the demonstrations' episodes, by data set, that no training of the policy has learned from.
    """

    # What RLlib's Algorithm asks of a learner group's shape.
    is_remote, is_local = True, False

    def __init__(self, config: Any) -> None:
        """
        Args:
            config: an `AsyncPPOConfig`.

        Raises:
            InputError: no checkpoint, or a policy without latent loop, or demonstrations that do not go with it, or
                several data sets in the checkpoint and none named.
        """
        if not config.checkpoint:
            raise InputError("no policy to start from: set the checkpoint folder")
        start = here(config.checkpoint)  # of a trial: on whatever machine that is
        checkpoint = load_checkpoint(start)
        settings = PPOSettings.of(config)
        check_trainable(checkpoint.policy.config, named(start), settings)
        if settings.train_actions:
            with_action_noise(checkpoint.policy, settings.action_std, keep=settings.learn_action_std)
        self.policy_config, self.statistics = checkpoint.policy.config, checkpoint.statistics_of(config.unnorm_key)
        self.held_out = never_learned(checkpoint.extra, config.demonstrations)
        self.version, self.updates, self.restarts = 0, 0, 0
        self._config, self._world = config, max(1, config.num_learners)
        self._initial = ray.put(flatten(checkpoint.policy))
        self._room = learner_room(config, self._world)
        self._failures = 0
        self._begun = 0.0  # of the running update
        self._pending: list[tuple[Any, Any]] = []
        self._broken: float | None = None  # since when an answer of the running update is an error
        self._revival: Future[Any] | None = None  # of lost ranks; its result is their weights
        self._ended = False
        self._ranks: list[Any] = []
        self._snapshot: list[Any] = []
        self._snapshot_is_newest = False  # versions also go on without an update
        try:
            self._start()
        except RayError as error:  # a rank has died or hangs already, which the others tell of in their own ways
            self._replace(type(error).__name__)
            self.version += 1
        # Before the first update: ranks that die early must come back to these weights.
        self._take_snapshot()

    def __len__(self) -> int:
        return self._world

    # Updates

    @property
    def pending(self) -> list[Any]:
        """References that become ready when the running update ends, for `ray.wait`."""
        return [answer for _, answer in self._pending]

    @property
    def reviving(self) -> bool:
        """Lost ranks are being replaced; that ends with weights to publish."""
        return self._revival is not None

    @property
    def busy(self) -> bool:
        """An update is running, or lost ranks are being replaced."""
        return bool(self._pending) or self._revival is not None

    def update_async(self, lots: list[tuple[Any, int]]) -> None:
        """Start an update on all ranks.

        Args:
            lots: (reference of a list of fragments, decisions in it), at least one a rank.
        """
        if self.busy:
            raise RuntimeError("an update is already running")
        if len(lots) < self._world:
            raise ValueError(f"{len(lots)} lots of fragments for {self._world} ranks: none may go without")
        for rank, share in zip(self._ranks, deal(lots, self._world), strict=True):
            self._pending.append(rank.update.options(num_returns=2).remote(share, self.version, self.updates))
        self._begun, self._broken = time.monotonic(), None

    def poll(self) -> Outcome | None:
        """The running update's outcome if all ranks are done with it, or lost ones have been replaced. Returns at once.

        A rank that dies is noticed at once (the others get `GRACE_S` to end too), one that hangs `learner_timeout_s`
        after the update has begun. They are replaced beside the caller, who has deliveries to take meanwhile.

        Raises:
            RayTaskError: a rank raised while none was lost, so it is a fault of the program.
            RuntimeError: ranks were lost several times in a row.
        """
        if self._revival is not None:
            return self._revived()
        if not self._pending:
            return None
        answers, now = self.pending, time.monotonic()
        ready, hung = ray.wait(answers, num_returns=len(answers), timeout=0)
        errors = [_error(answer) for answer in ready]
        if any(errors):
            self._broken = self._broken or now
        late = now - self._begun > self._config.learner_timeout_s
        if hung and not late and (self._broken is None or now - self._broken < GRACE_S):
            return None
        weights = self._pending[0][0]
        self._pending, self._broken = [], None
        lost = len(hung) + sum(error is not None and not isinstance(error, RayTaskError) for error in errors)
        if lost:
            what = f"{lost} lost" if not late else f"no answer within {self._config.learner_timeout_s} s"
            # Whoever raised may be why the others wait, or have been left waiting by them.
            what += "".join(f" ({error})" for error in errors if isinstance(error, RayTaskError))
            self._revival = in_background(self._replace, what)
            return None
        for error in errors:
            if error is not None:
                raise error
        self._failures = 0
        result: Update | Refusal = ray.get(answers[0])
        if isinstance(result, Refusal):
            return Outcome(self.version, refusal=result.reason)
        self.version += 1
        self.updates += 1
        self._snapshot_is_newest = False
        if self.version % self._config.snapshot_every == 0:
            self._take_snapshot()
        return Outcome(self.version, weights=weights, metrics=result.metrics)

    def weights(self) -> Any:
        """Reference of the newest weights as a WeightBuffer: there already, and owned by this process.

        Ranks that are lost are replaced first; `version` has then gone on.

        Raises:
            RuntimeError: ranks were lost several times in a row.
        """
        if self._revival is not None:
            return self._revival.result()
        try:
            return self._gathered()
        except RayError as error:
            weights = self._replace(type(error).__name__)
            self.version += 1
            return weights

    def _gathered(self) -> Any:
        references = [rank.weights.remote() for rank in self._ranks]
        ray.get(references, timeout=self._config.learner_timeout_s)
        return references[0]

    def policy(self) -> AvaVlaPolicy:
        """The newest policy, in this process."""
        policy = AvaVlaPolicy(self.policy_config).eval()
        load_flat(policy, ray.get(self.weights()))
        return policy

    # Ranks

    def _start(self) -> None:
        """Fresh ranks with the initial weights, or with those of the snapshot."""
        config = self._config
        self._room.wait("learner ranks")
        self._ranks = [
            ray.remote(**self._room.options(rank))(Learner).remote(
                PPOSettings.of(config), config.engine, self.policy_config, self.statistics, rank, self._world,
                threads=max(1, int(config.num_cpus_per_learner)), seed=config.seed or 0,
                demonstrations=config.demonstrations and Demonstrations(config.demonstrations, self.held_out),
                profile=config.profile,
            )
            for rank in range(self._world)
        ]  # fmt: skip
        place = self._all("address")[0]  # of processes that may hang while they start
        self._all("start", *place, self._initial)
        if self._snapshot:
            self._all("load", self._snapshot)

    def _revived(self) -> Outcome | None:
        """The lost ranks' successors, once they are there."""
        assert self._revival is not None
        if not self._revival.done():
            return None
        revival, self._revival = self._revival, None
        weights = revival.result()
        self.version += 1
        return Outcome(self.version, weights=weights, restarted=True)

    def _replace(self, lost: str) -> Any:
        """Replace all ranks; what they had not saved in a snapshot is lost. Returns the reference of their weights."""
        print(f"learner: {lost} of {self._world} ranks; all start again from the last snapshot", flush=True)
        cause: RayError | None = None
        while True:
            self._failures += 1  # since the last update that went through
            self._end_ranks()
            if self._failures > RESTARTS_IN_A_ROW:
                times = f"{self._failures} times in a row"
                raise RuntimeError(f"learner ranks were lost {times}, at last: {lost}") from cause
            self.restarts += 1
            try:
                self._start()
                weights = self._gathered()
            except RayError as error:
                if self._ended:
                    raise RuntimeError("the learner ranks are shut down") from error
                lost, cause = type(error).__name__, error
                continue
            if self._ended:  # shut down meanwhile: these are nobody's
                self._end_ranks()
                raise RuntimeError("the learner ranks are shut down")
            self._snapshot_is_newest = bool(self._snapshot)
            return weights

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method on all ranks and wait; InputError as it was raised."""
        calls = [getattr(rank, method).remote(*arguments) for rank in self._ranks]
        try:
            return ray.get(calls, timeout=self._config.learner_timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise

    def _take_snapshot(self) -> None:
        """Every rank's engine state into the object store of this process's machine: it outlives ranks and theirs."""
        snapshot = [rank.save.remote() for rank in self._ranks]
        limit = self._config.learner_timeout_s
        _, hung = ray.wait(snapshot, num_returns=len(snapshot), timeout=limit)
        if not hung and not any(_error(share) for share in snapshot):  # lost ranks are noticed by the next update
            self._snapshot, self._snapshot_is_newest = snapshot, True

    def _end_ranks(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        self._ranks, self._pending = [], []

    def shutdown(self) -> None:
        self._ended = True
        self._end_ranks()
        self._room.leave()

    # Checkpoints: RLlib's files, and beside them the ranks' engine state

    def get_state(self, components: Any = None, *, not_components: Any = None, **_: Any) -> dict[str, Any]:
        """Version and shape. Weights are not part of it: they are in the engine state, and runners pull them."""
        return {
            WEIGHTS_SEQ_NO: self.version, COMPONENT_LEARNER: {WEIGHTS_SEQ_NO: self.version},
            "updates": self.updates, "shape": (self._world, self._config.engine.zero_stage),
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved version; never back, since runners ignore what is not newer than theirs.

        Raises:
            InputError: saved by another number of ranks, or at another ZeRO stage.
        """
        ranks, stage = state["shape"]
        if (ranks, stage) != (self._world, self._config.engine.zero_stage):
            raise InputError(
                f"the checkpoint was written by {ranks} learner rank(s) at ZeRO stage {stage}, there are {self._world} "
                f"at stage {self._config.engine.zero_stage}: resume with the same"
            )
        self.version = max(self.version, state[WEIGHTS_SEQ_NO]) + 1
        self.updates = state["updates"]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self._config,), {}

    def save_to_path(self, path: Any = None, *, filesystem: Any = None, **options: Any) -> str:
        """Write a checkpoint: of the newest weights, or, where ranks have just died, of the last snapshot."""
        # What is there already needs no rank: neither one that is busy, nor one that is being replaced.
        if not self._snapshot_is_newest and self._revival is None:
            self._take_snapshot()
        place = super().save_to_path(path, filesystem=filesystem, **options)
        write_shares(ray.get(self._snapshot), place if path is None else path, filesystem)
        return place

    def restore_from_path(self, path: Any, *, filesystem: Any = None, **options: Any) -> None:
        """Load a checkpoint into all ranks.

        Raises:
            InputError: written by another number of ranks, another ZeRO stage or another policy.
        """
        if self._revival is not None:
            self._revival.result()
            self._revival = None
        super().restore_from_path(path, filesystem=filesystem, **options)
        snapshot = [ray.put(read_share(path, filesystem))]
        self._all("load", snapshot)
        self._snapshot, self._snapshot_is_newest = snapshot, True


def _error(reference: Any) -> RayError | None:
    """What went wrong in the call behind a finished reference."""
    try:
        ray.get(reference)
    except RayError as error:
        return error
    return None
