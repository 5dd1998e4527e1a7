"""Exit calibration of a checkpoint in an output folder.

OUTPUT/
  settings.json      what the episodes were played with; --resume must agree
  recipe.json        what was learned from them, which may differ from one --resume to the next
  decisions/         a file an episode: the latent states of its decisions
  checkpoint/        the calibrated policy, in the one format of policy/checkpoint.py
  calibration.md     tables: labels, reliability before and after, exits to expect
  reliability.png, training.png, exits.png
  summary.json       the same as numbers, and provenance
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.evaluation.calibration_plots import plot_exits, plot_gate_training, plot_reliability
from avavla_ray.evaluation.calibration_report import (
    GateReport,
    RoleReport,
    as_json,
    markdown,
    report_gate,
    report_role,
)
from avavla_ray.files import write_json, write_text
from avavla_ray.learning.gate_statistics import value_auc
from avavla_ray.learning.post_calibration import fit_gate_maps
from avavla_ray.policy.checkpoint import VALUED, Checkpoint, has_value, save_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.reasoning import ExitGate
from avavla_ray.tracked_run import Run
from avavla_ray.tracking import PENDING
from avavla_ray.training.gate_decisions import DecisionFolder, PlayedEpisode, Start
from avavla_ray.training.gate_training import (
    TEST,
    VALIDATION,
    GateData,
    GateSettings,
    gate_data,
    gate_logits,
    train_gate,
    with_gate_maps,
)

STAGE = "calibrated"
DECISIONS, SIMULATOR, RECIPE = "decisions", "simulator.json", "recipe.json"
PICTURES = ("reliability.png", "training.png", "exits.png")
NONE = "none"


@dataclass(frozen=True)
class Calibrated:
    """A gate that was trained, and what became of it.

    Attributes:
        policy: with the trained gate and its maps. points, kept: of `train_gate`. gates: before, trained, and
            post-calibrated where it is. roles: what the decisions are. auc: see `value_auc`.
    """

    policy: AvaVlaPolicy
    points: list[dict[str, float]]
    kept: int
    gates: list[GateReport]
    roles: list[RoleReport]
    auc: float | None


def check_calibratable(checkpoint: Checkpoint) -> None:
    """Refuse a policy whose gate can't be calibrated by values.

    Raises:
        InputError: it has no latent loop, never exits early, or its value head was not trained.
    """
    latent, place = checkpoint.policy.config.latent, checkpoint.path
    if not latent.enabled:
        raise InputError(f"checkpoint {place} has no latent loop: it has no exit gate to calibrate")
    if not latent.early_exit or latent.max_steps < 2:
        why = "takes one latent step" if latent.max_steps < 2 else "takes all its latent steps (latent.early_exit off)"
        raise InputError(f"checkpoint {place} always {why}: nobody asks its exit gate")
    if checkpoint.stage not in VALUED:
        raise InputError(
            f"checkpoint {place} is of stage {checkpoint.stage}, whose value head was never trained: give one of PPO "
            "(jobs/ppo_libero.py); from demonstrations alone jobs/bc_libero.py --stages exit_calibration calibrates"
        )
    if not has_value(checkpoint.stage, checkpoint.provenance):
        raise InputError(
            f"checkpoint {place} was trained by groups of episodes, without a critic (--group-size), so that its value "
            "head was never trained: give one of PPO with its critic"
        )


def load_played(folder: DecisionFolder, starts: Sequence[Start]) -> list[PlayedEpisode]:
    """The episodes of these starts that were played to their end."""
    return [folder.load(start) for start in starts if start in folder]


def note_simulator(folder: DecisionFolder, described: dict[str, Any]) -> None:
    """Keep what the simulator says of itself, for starts of the job that play nothing more."""
    if not (folder.path / SIMULATOR).is_file():
        write_json(folder.path / SIMULATOR, described)


def noted_simulator(folder: DecisionFolder) -> dict[str, Any]:
    """What `note_simulator` kept."""
    return json.loads((folder.path / SIMULATOR).read_text(encoding="utf-8"))


def goes_on(output: Path, recipe: dict[str, Any]) -> bool:
    """Whether the run in `output` was begun with this recipe, so that its MLflow run goes on; a new one begins else.

    Raises:
        InputError: the store has not taken everything of the run before.
    """
    path, now = output / RECIPE, json.loads(json.dumps(recipe))
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    pending = output / PENDING
    if before not in (None, now) and pending.is_file() and pending.stat().st_size:
        raise InputError(
            f"{pending} holds what MLflow has not taken of the recipe before: send it (python -m "
            f"avavla_ray.send_metrics {output}), or give another --output"
        )
    write_json(path, recipe)
    return before == now


def calibrate(
    policy: AvaVlaPolicy, played: Sequence[PlayedEpisode], settings: GateSettings, post: str, tracked: Run
) -> Calibrated:
    """Train the gate on what was played, and fit its maps; what is reported is of the test episodes.

    Args:
        policy: maps that its gate has already count as a part of what it was before; the calibrated one has its own.
        post: a method of `fit_gate_maps`, or "none".

    Raises:
        InputError: too few episodes, or labels that nothing can be fitted to.
        FloatingPointError: the loss is not finite.
    """
    bare = with_gate_maps(policy, ())
    data = gate_data(bare, played, settings)
    roles = [report_role(role, each.episodes, _array(each.labels), _array(each.gains)) for role, each in data.items()]
    _warn(roles, settings.delta)
    gates = [_report("before", policy, data[TEST])]
    points, kept = train_gate(bare, data, settings, told=tracked.log_metrics)
    gates.append(_report("trained", bare, data[TEST]))
    calibrated = bare
    if post != NONE:
        validation = data[VALIDATION]
        maps = fit_gate_maps(post, _array(gate_logits(bare, validation.states)), _array(validation.labels))
        calibrated = with_gate_maps(bare, maps)
        gates.append(_report(f"trained, {post.replace('_', ' ')}", calibrated, data[TEST]))
    auc = value_auc(_array(data[TEST].values)[:, -1], _array(data[TEST].success))
    return Calibrated(calibrated, points, kept, gates, roles, auc)


def finish(
    calibrated: Calibrated,
    checkpoint: Checkpoint,
    settings: GateSettings,
    output: Path,
    tracked: Run,
    *,
    post: str,
    lost: dict[Start, str],
    described: dict[str, Any],
) -> None:
    """Write the checkpoint, tables, pictures and numbers, and hand them to MLflow.

    Args:
        lost: starts that could not be played, and why. described: provenance.
    """
    threshold = checkpoint.policy.config.latent.exit_threshold
    title, roles, gates = f"Exit calibration, {output.name}", calibrated.roles, calibrated.gates
    table = markdown(title, roles, gates, threshold, calibrated.auc)
    summary = {
        "checkpoint": str(output / "checkpoint"), "threshold": threshold, "kept_step": calibrated.kept,
        "value_auc": calibrated.auc, "decisions": [as_json(role) for role in roles],
        "gates": [as_json(gate) for gate in gates],
        "not_played": [{**start._asdict(), "reason": why} for start, why in lost.items()], "provenance": described,
    }  # fmt: skip
    facts = {"post": post, "delta": settings.delta, "lookahead": settings.lookahead, "test": asdict(gates[-1].overall)}
    save_checkpoint(
        output / "checkpoint", calibrated.policy, checkpoint.all_statistics, stage=STAGE, provenance=described,
        extra={**checkpoint.extra, "calibration": facts}, origin=checkpoint.path,
    )  # fmt: skip
    write_text(output / "calibration.md", table)
    write_json(output / "summary.json", summary)
    plot_reliability(output / PICTURES[0], gates, roles[-1], settings.delta, threshold, title)
    plot_gate_training(output / PICTURES[1], calibrated.points, calibrated.kept, title)
    plot_exits(output / PICTURES[2], gates, title)
    numbers = {"decisions": float(sum(role.decisions for role in roles)), "episodes": sum(r.episodes for r in roles)}
    for name, gate in (("before", gates[0]), ("after", gates[-1])):
        each = gate.overall
        numbers |= {
            f"{name}/ece": each.ece, f"{name}/brier": each.brier, f"{name}/nll": each.nll,
            f"{name}/accuracy": each.accuracy,
        }  # fmt: skip
    numbers |= {f"label_rate/step_{k}": rate for k, rate in enumerate(roles[-1].label_rates, start=1)}
    tracked.log_metrics(numbers)
    tracked.set_tags(described)
    for name in ("calibration.md", "summary.json", *PICTURES):
        tracked.log_file(output / name)
    print(f"\n{table}\npolicy in {output / 'checkpoint'}, pictures and tables in {output}", flush=True)


def _report(name: str, policy: AvaVlaPolicy, data: GateData) -> GateReport:
    scores = ExitGate.score(gate_logits(policy, data.states))
    threshold = policy.config.latent.exit_threshold
    return report_gate(name, _array(scores), _array(data.labels), _array(data.values), threshold)


def _warn(roles: Sequence[RoleReport], delta: float) -> None:
    """Say so when the labels leave the gate nothing to tell apart."""
    decisions = sum(role.decisions for role in roles)
    rate = float(np.average([np.mean(r.label_rates) for r in roles], weights=[r.decisions for r in roles]))
    print(f"{decisions} decisions, {rate:.1%} of their labels say exit at delta {delta:g}", flush=True)
    if not 0.01 <= rate <= 0.99:
        low, high = min(g[0] for g in roles[0].gains), max(g[-1] for g in roles[0].gains)
        print(
            f"nearly all labels are the same: 90 % of the gains of thinking on lie in {low:.4g} to {high:.4g} of "
            "value, by which --delta could be chosen",
            flush=True,
        )


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()
