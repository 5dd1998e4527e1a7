"""The DeepSpeed engine that every learner stands on: set-up, full weights, save and load.

Behaviour cloning (Ray Train workers) and the PPO learner (Ray actors) use the same few calls, so that DeepSpeed's
pitfalls are handled in one place.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avavla_ray.errors import InputError, check_known
from avavla_ray.training.engine_shares import clear_padding

TAG = "engine"
PRECISIONS = ("float32", "bfloat16")
OFFLOADS = ("none", "optimizer", "all")


@dataclass(frozen=True)
class EngineSettings:
    """How a module is trained.

    Attributes:
        zero_stage: 0 replicates everything, 1 shards optimizer states, 2 gradients too, 3 parameters too.
        gradient_clip: largest global L2 norm of the gradient; 0 clips nothing.
        accumulation: backward passes per optimizer step.
        precision: "float32", or "bfloat16" for autocast over float32 weights, which leaves the policy's float32 islands
            in float32 (DeepSpeed's own bf16 mode would cast them).
        betas, epsilon, weight_decay: of AdamW.
        offload: what lies in CPU memory between its uses: "none"; "optimizer" states, whose step the CPU then takes
            (ZeRO 1 to 3); "all", the parameters too (ZeRO 3).
        timeout_s: a collective that waits longer for a rank fails.
    """

    zero_stage: int = 2
    gradient_clip: float = 1.0
    accumulation: int = 1
    precision: str = "float32"
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    offload: str = "none"
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        check_known("precision", self.precision, PRECISIONS)
        if self.zero_stage not in (0, 1, 2, 3):
            raise InputError(f"ZeRO stage {self.zero_stage} does not exist: give 0, 1, 2 or 3")
        if self.accumulation < 1:
            raise InputError(f"{self.accumulation} accumulation steps: give at least 1")
        check_known("offload", self.offload, OFFLOADS)
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise InputError(
                f"offload {self.offload!r} at ZeRO stage {self.zero_stage}: it needs stage {least} or more"
            )

    def to_deepspeed(self) -> dict[str, Any]:
        """DeepSpeed's own configuration dictionary."""
        zero: dict[str, Any] = {"stage": self.zero_stage}
        to_cpu = {"device": "cpu", "pin_memory": torch.accelerator.is_available()}
        if self.offload != "none":
            zero["offload_optimizer"] = to_cpu
        if self.offload == "all":
            zero["offload_param"] = to_cpu
        return {
            "train_micro_batch_size_per_gpu": 1,  # bookkeeping only: the caller shapes its batches
            "gradient_accumulation_steps": self.accumulation,
            "gradient_clipping": self.gradient_clip,
            # No module is "safe" to lower: DeepSpeed would reduce the gradients of every linear layer in bfloat16, and
            # under ZeRO 3 gather its weights so, those of float32 islands too. Autocast itself is torch's, not touched.
            "torch_autocast": {
                "enabled": self.precision == "bfloat16",
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            },
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # its own compiles for a minute and needs a C++ compiler
            "steps_per_print": 10**9,
        }


def _deepspeed() -> Any:
    """DeepSpeed, imported so that it neither guesses the device aloud nor compiles anything."""
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # It would compile a shared-memory all-reduce for a minute at first use; gloo does the same work.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def start_process_group(settings: EngineSettings) -> None:
    """Join this process to its group; RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT say which.

    Under Ray Train the group exists already and is adopted. gloo on CPU, nccl on GPU.
    """
    deepspeed = _deepspeed()
    deepspeed.init_distributed(
        dist_backend="gloo" if deepspeed.get_accelerator().device_name() == "cpu" else "nccl",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=timedelta(seconds=settings.timeout_s),
    )


def initialise_engine(objective: nn.Module, groups: Iterable[Mapping[str, Any]], settings: EngineSettings) -> Any:
    """Wrap `objective` in a DeepSpeed engine. Call it once per module, after its weights are loaded.

    Use the result as `loss, ... = engine(batch); engine.backward(loss); engine.step()`.

    Args:
        objective: holds the policy; its forward returns the loss. Parameters that `groups` leave out must not
            require gradients. Every other must take part in every loss, if only times 0: DeepSpeed 0.19.8 steps one
            that does not with its last gradient, under ZeRO 3 and with offload.
        groups: optimizer groups: "params" and "lr" each; `engine.optimizer.param_groups` keeps their order.

    Raises:
        ValueError: a parameter requires a gradient and no group owns it (it would silently stay as it is), or has no
            dimensions (DeepSpeed can't broadcast it).
    """
    groups = [dict(group, params=list(group["params"])) for group in groups]
    owned = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad != (id(parameter) in owned):
            state = "requires a gradient but is in no group" if parameter.requires_grad else "is frozen but in a group"
            raise ValueError(f"parameter {name} {state}")
        if parameter.ndim == 0:
            raise ValueError(f"parameter {name} has no dimensions: give it the shape (1,)")
    start_process_group(settings)
    # DeepSpeed's own "AdamW" compiles a fused kernel for minutes; PyTorch's is accepted in every stage. Fused, its step
    # of 2 M parameters takes a CPU core 1.6 ms, otherwise 10.
    optimizer = torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.epsilon, weight_decay=settings.weight_decay, fused=True
    )
    engine, *_ = _deepspeed().initialize(model=objective, optimizer=optimizer, config=settings.to_deepspeed())
    if settings.zero_stage == 0:
        _shorten(engine, [parameter for group in groups for parameter in group["params"]], settings.gradient_clip)
    if settings.zero_stage == 3:
        clear_padding(engine)
    return engine


def _shorten(engine: Any, parameters: list[Tensor], gradient_clip: float) -> None:
    """Do at once what an engine without ZeRO does parameter by parameter, walking through all modules as it goes.

    The numbers are the same; a CPU core is spared 4 of the 165 ms of a step of the preset `small` over 16 decisions.
    """
    engine.clip_fp32_gradients = lambda: torch.nn.utils.clip_grad_norm_(parameters, gradient_clip)
    # Zeros, as the sharded optimizers see them: who had no part in a loss keeps moments that fade.
    engine.zero_grad = lambda: engine.optimizer.zero_grad(set_to_none=False)
    if engine.world_size == 1:
        engine.enable_backward_allreduce = False  # would copy all gradients into one buffer and back


def release(engine: Any) -> None:
    """Destroy an engine and free the memory of what it trained: weights, buffers, gradients, optimizer state.

    It is free on return, whoever still refers to the engine or its module, which are of no use any more. DeepSpeed's
    own `destroy` frees nothing: its objects refer to each other, and at ZeRO 3 so do globals to the module.
    """
    deepspeed = _deepspeed()
    module, optimizer = engine.module, engine.optimizer
    engine.destroy()
    _forget(module)
    engine.module = engine.optimizer = None
    inner = getattr(optimizer, "optimizer", optimizer)  # PyTorch's, in DeepSpeed's from stage 1 on
    inner.state.clear()
    inner.param_groups.clear()
    vars(optimizer).clear()
    for parameter in module.parameters():
        parameter.grad = None
        parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
        vars(parameter).clear()  # ZeRO's share of it
    for each in module.modules():
        each._buffers.clear()
    gc.collect()
    deepspeed.get_accelerator().empty_cache()
    if torch.accelerator.is_available() and hasattr(torch.accelerator, "empty_host_cache"):  # not in PyTorch 2.6 yet
        torch.accelerator.empty_host_cache()  # what offload had pinned


def _forget(module: nn.Module) -> None:
    """Take a module out of the globals in which DeepSpeed 0.19.8 keeps it at ZeRO 3 for ever."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    stack, its_own = parameter_offload.FWD_MODULE_STACK, set(module.modules())
    stack[:] = [each for each in stack if each not in its_own]
    # A cache over a method, below a decorator that hides it.
    method = PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(method).nonlocals["func"].cache_clear()


def set_learning_rates(engine: Any, rates: Iterable[float]) -> None:
    """One rate per optimizer group, in the order given to `initialise_engine`."""
    for group, rate in zip(engine.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def full_state(
    engine: Any, prefix: str = "policy.", *, everywhere: bool = False, dtype: torch.dtype | None = torch.float32
) -> dict[str, Tensor] | None:
    """Whole CPU weights of the submodule at `prefix`: a state dict at rank 0, None elsewhere.

    Collective: every rank must call it. Under ZeRO 3 one parameter at a time is gathered, so that no rank needs room
    for more than the largest. With `everywhere` every rank gets the state dict. Parameters have
    `dtype`, or None: each its own. Buffers always keep theirs.
    """
    deepspeed = _deepspeed()
    module, sharded = engine.module, engine.zero_optimization_stage() == 3
    keeper = everywhere or engine.global_rank == 0
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not name.startswith(prefix):
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=sharded):
            if keeper:
                state[name.removeprefix(prefix)] = parameter.detach().to("cpu", dtype or parameter.dtype, copy=True)
    if not keeper:
        return None
    known = set(module.state_dict())  # leaves out non-persistent buffers
    for name, buffer in module.named_buffers():
        if name.startswith(prefix) and name in known:
            state[name.removeprefix(prefix)] = buffer.detach().to("cpu", copy=True)
    return state


def save_engine(engine: Any, folder: str | Path, client_state: Mapping[str, Any] | None = None) -> None:
    """Write this rank's share of weights and optimizer state. Collective: every rank calls it with its own folder
    or a shared one. `client_state` (picklable) is kept at rank 0's share."""
    engine.save_checkpoint(str(folder), tag=TAG, client_state={"client": dict(client_state or {})})


def load_engine(engine: Any, folder: str | Path) -> dict[str, Any]:
    """Restore what `save_engine` wrote; returns its `client_state`. Collective.

    Raises:
        InputError: nothing there, or written by another number of ranks or another ZeRO stage.
    """
    share = Path(folder) / TAG
    optimizer_files = sorted(share.glob("*optim_states.pt"))
    if not (share / "mp_rank_00_model_states.pt").is_file() and not list(share.glob("zero_pp_rank_*model_states.pt")):
        raise InputError(f"{folder} holds no engine state: resume from a folder that training wrote")
    if engine.zero_optimization_stage() > 0 and len(optimizer_files) != engine.world_size:
        raise InputError(
            f"{folder} was written by {len(optimizer_files)} sharded workers, {engine.world_size} are running: "
            "resume with the same number of workers and the same ZeRO stage"
        )
    try:
        path, state = engine.load_checkpoint(str(folder), tag=TAG)
    except (RuntimeError, AssertionError, KeyError, FileNotFoundError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{folder} does not fit this training ({first}): resume with the settings it began with"
        ) from error
    if path is None:
        raise InputError(f"{folder} holds no engine state: resume from a folder that training wrote")
    return state["client"]
