"""From a checkpoint folder to a model: built without memory, then filled tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.folder import TOKENIZER, UNUSED, OpenVlaFolder, open_folder
from avavla_ray.policy.openvla.model import OpenVla
from avavla_ray.policy.openvla.prompt import PromptTokenizer
from avavla_ray.policy.openvla.shapes import build_on_meta, differences, model_shapes, summary


class LoadedOpenVla(NamedTuple):
    """model, in evaluation mode; the folder it came from; its tokenizer."""

    model: OpenVla
    folder: OpenVlaFolder
    tokenizer: PromptTokenizer


def load_openvla(
    folder: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None, verify: bool = True
) -> LoadedOpenVla:
    """Load a model. Memory beyond the model's own stays near one tensor.

    Args:
        dtype: of all weights; None keeps those of the files.
        verify: check the hash of every file first.

    Raises:
        InputError: the folder is damaged, or its tensors are not those of its configuration.
    """
    opened = open_folder(folder, verify)
    expected = model_shapes(opened.config)
    present = {name for name in opened.weight_map if not name.startswith(UNUSED)}
    problems = [f"{name} is missing" for name in expected if name not in present]
    problems += [f"{name} is unknown" for name in sorted(present - set(expected))]
    model = build_on_meta(opened.config)
    for name, tensor in opened.tensors(device) if not problems else ():
        wrong = differences({name: expected[name]}, {name: tuple(tensor.shape)})
        problems += wrong
        if not wrong:
            # A file's tensors may be views of its mapped memory; the model must not depend on the file.
            own = tensor.to(dtype or tensor.dtype, copy=True) if device == "cpu" else tensor.to(dtype or tensor.dtype)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.Parameter(own))
    if problems:
        raise InputError(f"checkpoint {folder} does not fit its configuration ({summary(problems)}): write it again")
    fill_buffers(model, device)
    return LoadedOpenVla(model.eval(), opened, PromptTokenizer(opened.path / TOKENIZER, opened.config))


def fill_buffers(model: OpenVla, device: torch.device | str) -> None:
    """Give a model that was built on `meta` the constants that no checkpoint holds."""
    language = model.language.model
    language.rotary_emb = type(language.rotary_emb)(config=model.language.config).to(device)
    embeddings: nn.Module = model.vision.siglip.embeddings  # type: ignore[assignment]
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
    model.special = model.special.to(device)
    left = [name for name, tensor in (*model.named_buffers(), *model.named_parameters()) if tensor.is_meta]
    if left:
        raise RuntimeError(f"transformers {', '.join(left)} have no values: this version keeps a constant of its own")
