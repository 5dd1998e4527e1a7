"""What each stage of training moves, and what it needs (arXiv 2606.15099, section 3.4)."""

from __future__ import annotations

from avavla_ray.errors import InputError
from avavla_ray.training.settings import CALIBRATION, CLONING, WARM_UP, CloningSettings

# Parts that learn, keys of `AvaVlaPolicy.parameter_groups`; the others are frozen.
PARTS: dict[str, tuple[str, ...]] = {
    CLONING: ("backbone", "attention", "action", "encoder"),
    WARM_UP: ("reasoner", "transition"),
    CALIBRATION: ("gate",),
}
# Stages that move the latent loop, of which a policy without one has nothing.
LOOP_STAGES = (WARM_UP, CALIBRATION)


def runs(kind: str, latent_loop: bool) -> bool:
    """Whether a policy with or without a latent loop goes through a stage."""
    return latent_loop or kind not in LOOP_STAGES


def check_stages(settings: CloningSettings, *, latent_loop: bool, valued: bool, fresh: bool = False) -> None:
    """Raise InputError when a policy cannot go through the stages in a way that means anything.

    Args:
        valued: its value head has been trained, by PPO.
        fresh: its weights are. If they stay so where it thinks, that is said.
    """
    kinds = [stage.kind for stage in settings.stages]
    if not any(runs(kind, latent_loop) for kind in kinds):
        raise InputError(f"stages {', '.join(kinds)}: this policy has no latent loop, give it a stage of {CLONING}")
    going = [stage for stage in settings.stages if runs(stage.kind, latent_loop)]
    for stage in going:
        steps = None if settings.steps is None else settings.steps * stage.share / sum(each.share for each in going)
        if steps is not None and steps < 1:
            raise InputError(f"stage {stage.kind} has {steps:.2g} of {settings.steps} steps: give it a larger share")
    if latent_loop and fresh and WARM_UP not in kinds:
        print(
            f"no stage trains the latent loop ({WARM_UP}), through which the policy will think all the same: evaluate "
            "it with --thresholds --depths 0, or train the loop from its checkpoint",
            flush=True,
        )
    if latent_loop and CALIBRATION in kinds and settings.exit_target == "value" and not valued:
        raise InputError(
            "exit target value: this policy's value head was never trained, start from a checkpoint of PPO or give "
            "exit target imitation"
        )
