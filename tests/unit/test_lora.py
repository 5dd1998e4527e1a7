import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from actors.objective import PPOObjective
from actors.settings import PPOSettings
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config import LoraConfig
from avavla_ray.policy.lora import adapt, fold, frozen_parameters, is_merged, lora_parameters, merge, unmerge
from avavla_ray.policy.openvla.exchange import export_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import PolicyInputs
from avavla_ray.training.objective import learning_parameters, train_only
from avavla_ray.training.settings import CLONING, WARM_UP
from avavla_ray.training.stages import PARTS
from tests.support.openvla_folder import import_and_load, write_published
from tests.support.openvla_policies import chunk_of, openvla_config, openvla_inputs, openvla_policy
from tests.support.policies import stirred_policy, tiny

LORA = LoraConfig(rank=4, alpha=8)
PRECISIONS = ("float32", "bfloat16")


@pytest.fixture(params=PRECISIONS)
def policy(request: pytest.FixtureRequest) -> AvaVlaPolicy:
    policy = openvla_policy(LORA)
    policy.set_precision(request.param)
    return policy


def _backbone_bits(policy: AvaVlaPolicy) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.state_dict().items() if name.startswith("backbone")}


def _assert_same(found: Tensor, chunk: Tensor, policy: AvaVlaPolicy, inputs: PolicyInputs) -> None:
    """Equal to rounding. In bfloat16 that of the sum of weight and adapter, which the separate adapter did not have:
    the merged policy must be as near to the exact one as the separate one is."""
    if policy.backbone.model.dtype == torch.float32:
        torch.testing.assert_close(found, chunk, rtol=0, atol=1e-5)
    else:
        exact = chunk_of(openvla_policy(LORA), inputs)
        assert (found - exact).abs().mean() < 1.5 * (chunk - exact).abs().mean()


def test_every_linear_layer_of_decoder_and_projector_has_an_adapter_and_nothing_else_has() -> None:
    plain, adapted = openvla_policy(), openvla_policy(LORA)
    linear = {
        name for name, module in plain.named_modules() if isinstance(module, nn.Linear)
        and name.startswith(("backbone.model.language.model.layers.", "backbone.model.projector."))
    }  # fmt: skip
    assert len(linear) == 7 * 2 + 3
    names = set(adapted.state_dict())
    expected = set(plain.state_dict())
    for name in linear:
        expected -= {f"{name}.weight", f"{name}.bias"}
        expected |= {f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight", f"{name}.base_layer.weight"}
        expected |= {f"{name}.base_layer.bias"} if "projector" in name else set()
    assert names == expected
    layer = adapted.get_submodule("backbone.model.language.model.layers.1.mlp.down_proj")
    x = torch.randn(3, 96)
    base, A, B = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert A.shape == (4, 96)
    torch.testing.assert_close(layer(x), x @ (base + 8 / 4 * B @ A).T, rtol=1e-5, atol=1e-5)
    only = openvla_policy(LoraConfig(rank=4, targets=("projector",)))
    assert len(lora_parameters(only.backbone)) == 6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fresh_adapters_change_no_bit_of_what_the_policy_does(precision: str) -> None:
    policy = openvla_policy()
    policy.set_precision(precision)
    inputs = openvla_inputs(policy.config, 2)
    before = chunk_of(policy, inputs)
    adapt(policy, LORA)
    assert policy.config.lora == LORA
    assert torch.equal(before, chunk_of(policy, inputs))
    assert {parameter.dtype for parameter in lora_parameters(policy.backbone)} == {torch.float32}


def test_adapters_heads_and_adaptive_parts_learn_and_the_published_weights_do_not() -> None:
    policy = openvla_policy(LORA)
    learning = {id(parameter) for parameter in learning_parameters(policy, PARTS[CLONING])}
    names = {name for name, parameter in policy.named_parameters() if id(parameter) in learning}
    assert names == {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert all(
        ("lora_" in name) or name.startswith(("backbone.model.head", "backbone.model.proprio"))
        for name in names if name.startswith("backbone.")
    )  # fmt: skip
    assert {"backbone.model.head.fc2.weight", "backbone.model.proprio.fc1.weight"} < names
    assert any(name.startswith("attention.") for name in names)
    assert any(name.startswith("encoder.") for name in names)
    frozen = {id(parameter) for parameter in frozen_parameters(policy.backbone)}
    assert frozen | {id(p) for p in policy.backbone.parameters() if id(p) in learning} == {
        id(p) for p in policy.backbone.parameters()
    }
    groups = policy.parameter_groups()
    assert {id(parameter) for parameter in groups["frozen"]} == frozen
    assert sum(map(len, groups.values())) == len(list(policy.parameters()))
    assert not openvla_policy().parameter_groups()["frozen"]
    for parts in (PARTS[WARM_UP], ("backbone",)):
        assert not frozen & {id(parameter) for parameter in learning_parameters(policy, parts)}
    for cloning in (False, True):
        owned = {id(p) for group in PPOObjective(policy, PPOSettings()).optimizer_groups(cloning=cloning)
                 for p in group["params"]}  # fmt: skip
        assert not frozen & owned
        assert owned == {id(parameter) for parameter in policy.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cloning_with_adapters_fits_a_batch_and_leaves_the_base_as_it_was(precision: str) -> None:
    policy = openvla_policy(LORA).train()
    policy.set_precision(precision)
    learning = learning_parameters(policy, PARTS[CLONING])
    assert {parameter.dtype for parameter in learning} == {torch.float32}
    assert {parameter.dtype for parameter in frozen_parameters(policy.backbone)} == {getattr(torch, precision)}
    before = _backbone_bits(policy)
    inputs = openvla_inputs(policy.config, 4)
    target = torch.rand(4, 8, 7, generator=torch.Generator().manual_seed(3)) * 2 - 1
    optimizer = torch.optim.AdamW(learning, lr=2e-3, weight_decay=0.0)
    losses = []
    for _ in range(40):
        chunk, _, _ = policy.clone(inputs, policy.initial_belief(4), latent_steps=0)
        loss = (chunk - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    after = _backbone_bits(policy)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapters = {name for name in before if "lora_" in name}
    whole = {name for name in before if name.startswith(("backbone.model.head.", "backbone.model.proprio."))}
    assert changed == adapters | whole


def test_merged_is_the_same_policy_and_unmerge_gives_the_base_back_bit_for_bit(policy: AvaVlaPolicy) -> None:
    inputs = openvla_inputs(policy.config, 2)
    before, chunk = _backbone_bits(policy), chunk_of(policy, inputs)
    for _ in range(2):
        merge(policy)
        assert is_merged(policy)
        merged = chunk_of(policy, inputs)
        _assert_same(merged, chunk, policy, inputs)
        merge(policy)
        assert torch.equal(chunk_of(policy, inputs), merged)
        unmerge(policy)
        unmerge(policy)
        assert not is_merged(policy)
        after = _backbone_bits(policy)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(chunk_of(policy, inputs), chunk)
    without = openvla_policy(LORA)
    with torch.no_grad():
        for parameter in lora_parameters(without.backbone):
            parameter.zero_()
    assert (chunk_of(without, inputs) - chunk).abs().max() > 0.1  # the adapters do matter here


@pytest.mark.parametrize("merged_before", [False, True])
def test_folded_is_a_plain_policy_in_the_same_memory(policy: AvaVlaPolicy, merged_before: bool) -> None:
    inputs = openvla_inputs(policy.config, 2)
    chunk = chunk_of(policy, inputs)
    places = {name.replace(".base_layer", ""): value.data_ptr() for name, value in policy.named_parameters()}
    if merged_before:
        merge(policy)
    folded = fold(policy)
    _assert_same(chunk_of(folded, inputs), chunk, policy, inputs)
    assert folded.config == openvla_config()
    plain = AvaVlaPolicy(folded.config)
    assert list(plain.state_dict()) == list(folded.state_dict())
    assert {name: places[name] for name, _ in folded.named_parameters()} == {
        name: value.data_ptr() for name, value in folded.named_parameters()
    }
    assert all(parameter.requires_grad for parameter in folded.parameters())
    plain.set_precision("float32" if folded.backbone.model.dtype == torch.float32 else "bfloat16")
    plain.load_state_dict(folded.state_dict())
    assert torch.equal(chunk_of(plain.eval(), inputs), chunk_of(folded, inputs))
    adapt(folded, LORA)  # and can be adapted again


def test_weights_go_from_one_adapted_policy_to_another_built_without_memory() -> None:
    policy = openvla_policy(LORA)
    inputs = openvla_inputs(policy.config, 2)
    with torch.device("meta"):
        other = AvaVlaPolicy(policy.config)
    assert all(parameter.is_meta for parameter in lora_parameters(other.backbone))
    other = AvaVlaPolicy(policy.config).eval()
    other.load_state_dict(policy.state_dict())
    assert torch.equal(chunk_of(other, inputs), chunk_of(policy, inputs))
    with pytest.raises(RuntimeError, match="lora_A"):
        AvaVlaPolicy(dataclasses.replace(policy.config, lora=None)).load_state_dict(policy.state_dict())


def test_a_published_checkpoint_is_adapted_saved_loaded_folded_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    published = write_published(tmp_path / "published", oft=True, dtype=torch.bfloat16)
    policy = import_and_load(tmp_path / "published", tmp_path / "runs/oft").policy
    adapt(policy, LORA)
    train_only(policy, [])
    with torch.no_grad():
        for parameter in lora_parameters(policy.backbone):
            parameter.normal_(generator=torch.Generator().manual_seed(4)).mul_(0.05)
    known: dict[str, Any] = {"statistics": policy.statistics, "stage": "bc", "provenance": {}}
    merge(policy)
    with pytest.raises(InputError, match="unmerge"):
        save_checkpoint(tmp_path / "runs/tuned/checkpoint", policy, **known)
    unmerge(policy)
    save_checkpoint(tmp_path / "runs/tuned/checkpoint", policy, **known, origin=tmp_path / "runs/oft")
    loaded = load_checkpoint(tmp_path / "runs/tuned/checkpoint").policy
    assert loaded.config == policy.config
    state = loaded.state_dict()
    assert list(state) == list(policy.state_dict())
    for name, tensor in policy.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name]), name
    assert not any(parameter.requires_grad for parameter in frozen_parameters(loaded.backbone))
    inputs = openvla_inputs(policy.config, 2)
    assert torch.equal(chunk_of(loaded, inputs), chunk_of(policy, inputs))

    layer = policy.get_submodule("backbone.model.language.model.layers.0.mlp.up_proj")
    B, A = layer.lora_B["default"].weight.detach(), layer.lora_A["default"].weight.detach()
    page = (Path(__file__).parents[2] / "docs/fine_tuning.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})  # the page's own lines fold runs/tuned/checkpoint into runs/folded
    assert load_checkpoint(tmp_path / "runs/folded").policy.config == dataclasses.replace(policy.config, lora=None)
    export_checkpoint(tmp_path / "runs/folded", tmp_path / "back")
    back = {
        name: tensor for path in (tmp_path / "back").glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    assert back.keys() == published.keys()
    changed = {name for name, tensor in published.items() if not torch.equal(tensor, back[name])}
    assert len(changed) == 7 * 2 + 3
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(back[name], (published[name].float() + 8 / 4 * B @ A).bfloat16())


def test_what_cannot_be_done_is_refused_in_one_line() -> None:
    small = stirred_policy(tiny())
    with pytest.raises(InputError, match="need an OpenVLA backbone"):
        adapt(small, LORA)
    policy = openvla_policy()
    for act in (merge, fold):
        with pytest.raises(InputError, match="no LoRA adapters"):
            act(policy)
    with pytest.raises(InputError, match="rank 0"):
        adapt(policy, LoraConfig(rank=0))
    assert policy.config.lora is None
    assert not lora_parameters(policy.backbone)
    adapt(policy, LORA)
    with pytest.raises(InputError, match="adapters already"):
        adapt(policy, LORA)
    broken = policy.get_submodule("backbone.model.projector.fc2").lora_A["default"].weight
    with torch.no_grad():
        broken[1, 2] = torch.nan
    for act in (merge, fold):
        with pytest.raises(InputError, match=r"projector\.fc2 holds NaN"):
            act(policy)
    assert not is_merged(policy)
    assert policy.config.lora == LORA
