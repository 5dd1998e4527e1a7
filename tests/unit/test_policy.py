"""The whole decision: switches, replay, gradients, determinism."""

from __future__ import annotations

import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs, stack_beliefs
from tests.support.policies import random_belief, random_inputs, stirred_policy, tiny

SWITCHES = {
    "all on": {},
    "attention off": {"attention__enabled": False},
    "state initialisation off": {"state_initialisation": False},
    "recurrence off": {"recurrent": False},
    "latent loop off": {"latent__enabled": False},
    "early exit off": {"latent__early_exit": False},
    "all off": {
        "attention__enabled": False, "state_initialisation": False, "recurrent": False,
        "latent__enabled": False, "latent__early_exit": False,
    },
}  # fmt: skip
# Weights that multiply the belief: without recurrence they multiply zeros.
BELIEF_READERS = {"attention.belief.0.weight", "action_tokens.initialise.0.weight", "encoder.parts.3.weight"}


def cut(inputs: PolicyInputs, rows: slice) -> PolicyInputs:
    return PolicyInputs(*(part[rows] for part in inputs))


@pytest.mark.parametrize("changes", SWITCHES.values(), ids=SWITCHES.keys())
def test_acts_and_learns_with_every_switch(changes):
    config = tiny(**changes)
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 3), random_belief(policy, 3)
    decision = policy.decide(inputs, belief)
    K, Z = config.latent.max_steps, config.latent.width
    assert decision.chunk.shape == (3, 8, 7)
    assert decision.chunk.dtype == torch.float32
    assert decision.trace.z.shape == (3, K + 1, Z)
    assert decision.visual_weights.shape == (3, config.backbone.visual_tokens)
    assert [part.shape for part in decision.belief] == [part.shape for part in belief]
    assert all(torch.isfinite(part).all() for part in (decision.chunk, *decision.belief, decision.trace.z))

    noise, depth = torch.randn(3, K, config.latent.update_dim), K if config.latent.enabled else 0
    chunk, handed_on, states = policy.clone(inputs, belief, latent_steps=depth, noise=noise)
    assert not any(part.requires_grad for part in handed_on)
    (chunk.square().sum() + states.square().sum()).backward()
    parameters = dict(policy.named_parameters())
    untouched = {name for name, parameter in parameters.items() if parameter.grad is None}
    assert untouched == {name for name in parameters if name.startswith(("loop.exit_gate", "value_head"))}
    unmoved = {name for name in parameters.keys() - untouched if not parameters[name].grad.any()}
    assert unmoved == (set() if config.recurrent else BELIEF_READERS & parameters.keys())


def test_switched_off_parts_have_no_parameters():
    groups = stirred_policy(tiny(**SWITCHES["all off"])).parameter_groups()
    assert [name for name, group in groups.items() if not group] == [
        "frozen", "attention", "reasoner", "transition", "gate", "noise",
    ]  # fmt: skip


@pytest.mark.parametrize("changes", SWITCHES.values(), ids=SWITCHES.keys())
def test_parameter_groups_are_disjoint_and_complete(changes):
    policy = AvaVlaPolicy(tiny(**changes))
    grouped = [id(parameter) for group in policy.parameter_groups().values() for parameter in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in policy.parameters()}
    assert list(policy.parameter_groups()) == [
        "backbone", "frozen", "attention", "action", "encoder", "reasoner", "transition", "gate", "value",
        "noise",
    ]  # fmt: skip


def test_attention_off_weighs_every_token_one():
    config = tiny(attention__enabled=False)
    policy = stirred_policy(config)
    assert (policy.decide(random_inputs(config, 2), policy.initial_belief(2)).visual_weights == 1).all()


def test_without_recurrence_the_belief_is_neither_read_nor_written():
    config = tiny(recurrent=False)
    policy = stirred_policy(config)
    inputs = random_inputs(config, 2)
    zero, full = policy.decide(inputs, policy.initial_belief(2)), policy.decide(inputs, random_belief(policy, 2))
    assert torch.equal(zero.chunk, full.chunk)
    assert not any(part.any() for part in full.belief)
    assert not any(part.any() for part in policy.clone(inputs, random_belief(policy, 2), latent_steps=1)[1])


@pytest.mark.parametrize("part", ["hidden", "history"])
def test_with_recurrence_both_parts_of_the_belief_matter(part):
    config = tiny()
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 2), random_belief(policy, 2)
    other = belief._replace(**{part: torch.zeros_like(getattr(belief, part))})
    assert not torch.allclose(policy.decide(inputs, belief).chunk, policy.decide(inputs, other).chunk)


def test_without_attention_and_initialisation_the_hidden_states_are_not_read():
    config = tiny(attention__enabled=False, state_initialisation=False)
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 2), random_belief(policy, 2)
    other = belief._replace(hidden=torch.zeros_like(belief.hidden))
    assert torch.equal(policy.decide(inputs, belief).chunk, policy.decide(inputs, other).chunk)


def test_belief_is_the_last_latent_and_the_action_tokens_hidden_states():
    config = tiny()
    policy = stirred_policy(config)
    decision = policy.decide(random_inputs(config, 3), random_belief(policy, 3), depth=2)
    torch.testing.assert_close(decision.belief.history, decision.trace.z[:, 2])
    assert decision.belief.hidden.shape == (3, config.action_tokens, config.backbone.width)
    assert decision.belief.hidden.any()


def test_latent_loop_off_acts_on_the_start():
    config = tiny(latent__enabled=False)
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 2), random_belief(policy, 2)
    decision = policy.decide(inputs, belief)
    assert (decision.trace.steps == 0).all()
    torch.testing.assert_close(policy.initial_latent(inputs, belief)[1], decision.trace.z[:, 0])
    with pytest.raises(InputError, match="no latent loop"):
        policy.decide(inputs, belief, depth=1)
    with pytest.raises(InputError, match="no latent loop"):
        policy.gate_logit(decision.trace.z)


def test_early_exit_off_takes_every_step_whatever_the_threshold():
    config = tiny(latent__early_exit=False)
    policy = stirred_policy(config)
    decision = policy.decide(random_inputs(config, 3), policy.initial_belief(3), exit_threshold=0.0)
    assert (decision.trace.steps == 5).all()


@pytest.mark.parametrize("depth", range(6))
def test_depth_overrides_the_gate(depth):
    config = tiny()
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 3), random_belief(policy, 3)
    decision = policy.decide(inputs, belief, depth=depth, exit_threshold=0.0)
    assert (decision.trace.steps == depth).all()
    chunk, _, states = policy.clone(inputs, belief, latent_steps=depth)
    torch.testing.assert_close(decision.chunk, chunk.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decision.trace.z[:, : depth + 1], states.detach())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"exit_threshold": 1.2}, r"exit threshold 1.2 is outside \[0, 1\]"),
        ({"exit_threshold": float("nan")}, "exit threshold nan"),
        ({"keep_ratio": -1.0}, "keep ratio"),
        ({"depth": 6}, "outside 0..5"),
        ({"depth": -1}, "outside 0..5"),
    ],
)
def test_bad_options_are_refused(options, complaint):
    policy = AvaVlaPolicy(tiny())
    with pytest.raises(InputError, match=complaint):
        policy.decide(random_inputs(policy.config, 1), policy.initial_belief(1), **options)


def test_a_decision_does_not_depend_on_its_neighbours_in_the_batch():
    config = tiny()
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 6), random_belief(policy, 6)
    scores = policy.decide(inputs, belief).trace.exit_score[:, 0].sort().values
    threshold = float(scores[2:4].mean())  # some leave after the first step, some do not
    together = policy.decide(inputs, belief, exit_threshold=threshold)
    assert len(together.trace.steps.unique()) > 1
    alone = [
        policy.decide(cut(inputs, row), Belief(*(part[row] for part in belief)), exit_threshold=threshold)
        for row in (slice(i, i + 1) for i in range(6))
    ]
    torch.testing.assert_close(torch.cat([d.chunk for d in alone]), together.chunk, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        stack_beliefs([d.belief for d in alone]).hidden, together.belief.hidden, atol=1e-4, rtol=1e-4
    )
    assert torch.equal(torch.cat([d.trace.steps for d in alone]), together.trace.steps)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_log_probs_replay_from_what_a_fragment_stores(name):
    torch.manual_seed(0)
    policy = AvaVlaPolicy(preset(name)).train()
    with torch.no_grad():
        for parameter in policy.loop.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    decision = policy.decide(
        random_inputs(policy.config, 5), policy.initial_belief(5), draws=policy.draws(5), exit_threshold=1.0
    )
    trace, K = decision.trace, policy.config.latent.max_steps
    log_prob, entropy = policy.eval().log_prob_entropy(
        trace.z[:, :K].flatten(0, 1), trace.u.flatten(0, 1), decision.context.encoding.repeat_interleave(K, dim=0)
    )
    assert trace.u.any()
    torch.testing.assert_close(log_prob.view(5, K), trace.log_prob, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy.view(5, K), trace.entropy, atol=1e-6, rtol=0)


def test_stored_context_replays_the_latents_without_images():
    config = tiny()
    policy = stirred_policy(config)
    decision = policy.decide(random_inputs(config, 3), random_belief(policy, 3), depth=5)
    states = policy.unroll(decision.context, decision.trace.z[:, 0], 5)
    torch.testing.assert_close(states, decision.trace.z)
    assert policy.value(states).shape == policy.gate_logit(states).shape == (3, 6)


def test_initial_latent_is_what_act_starts_from():
    config = tiny()
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 3), random_belief(policy, 3)
    context, z0 = policy.initial_latent(inputs, belief)
    decision = policy.decide(inputs, belief)
    torch.testing.assert_close(z0, decision.trace.z[:, 0])
    torch.testing.assert_close(context, decision.context)


def test_pruning_shortens_the_sequence_and_reports_all_weights():
    config = tiny()
    policy = stirred_policy(config)
    inputs, belief = random_inputs(config, 2), random_belief(policy, 2)
    lengths = []
    policy.backbone.transformer.register_forward_pre_hook(lambda module, given: lengths.append(given[0].shape[1]))
    whole, pruned = policy.decide(inputs, belief), policy.decide(inputs, belief, keep_ratio=0.5)
    assert lengths[0] - lengths[1] == config.backbone.visual_tokens // 2
    assert torch.equal(whole.visual_weights, pruned.visual_weights)
    assert not torch.equal(whole.chunk, pruned.chunk)


def test_padding_says_nothing():
    config = tiny()
    policy = stirred_policy(config)
    inputs = random_inputs(config, 2)
    inputs.text[0, 3:] = 0
    inputs.text[1] = inputs.text[0]
    short = policy.decide(inputs, policy.initial_belief(2)).chunk
    inputs.text[1, :9] = torch.arange(1, 10)  # now row 0 is padded to the length of row 1
    torch.testing.assert_close(policy.decide(inputs, policy.initial_belief(2)).chunk[0], short[0], atol=1e-5, rtol=1e-5)


def test_images_of_another_size_are_resized():
    config = tiny()
    policy = stirred_policy(config)
    inputs = random_inputs(config, 1)
    doubled = inputs.images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    big = policy.decide(inputs._replace(images=doubled), policy.initial_belief(1)).chunk
    torch.testing.assert_close(big, policy.decide(inputs, policy.initial_belief(1)).chunk, atol=0.2, rtol=0.2)


def test_acting_leaves_training_mode_and_gradients_alone():
    config = tiny(backbone__dropout=0.5)
    policy = stirred_policy(config).train()
    inputs = random_inputs(config, 2)
    one, two = (policy.decide(inputs, policy.initial_belief(2)).chunk for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert policy.training
    assert policy.backbone.transformer.training


def test_same_seed_same_policy_same_decision():
    decisions = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        policy = AvaVlaPolicy(tiny())
        generator = torch.Generator().manual_seed(seed)
        decisions.append(
            policy.decide(random_inputs(policy.config, 2), policy.initial_belief(2), draws=policy.draws(2, generator))
        )
    assert torch.equal(decisions[0].chunk, decisions[1].chunk)
    assert torch.equal(decisions[0].trace.u, decisions[1].trace.u)
    assert not torch.equal(decisions[0].chunk, decisions[2].chunk)


def test_learns_to_point_at_what_it_sees():
    """A square somewhere in a grey image; the action is where it is: vision, transformer and head work together."""
    torch.manual_seed(0)
    config = tiny()
    policy = AvaVlaPolicy(config)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    size = config.backbone.image_size

    def batch(n):
        place = torch.randint(0, size - 6, (n, 2))
        images = torch.full((n, 2, size, size, 3), 90, dtype=torch.uint8)
        for row, (y, x) in enumerate(place.tolist()):
            images[row, 0, y : y + 6, x : x + 6] = torch.tensor([250, 30, 30], dtype=torch.uint8)
        text = torch.zeros(n, config.backbone.max_text_tokens, dtype=torch.int64)
        text[:, 0] = 70
        target = (place / (size - 6) * 2 - 1).float()
        return PolicyInputs(images, text, torch.zeros(n, config.proprio_dim)), target

    def error(n):
        inputs, target = batch(n)
        chunk, _, _ = policy.clone(inputs, policy.initial_belief(n), latent_steps=0)
        return (chunk[:, :, :2] - target[:, None]).abs().mean()

    before = float(error(64).detach())
    for _ in range(150):
        loss = error(32)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(error(64).detach()) < 0.25 * before


def test_what_a_switched_off_part_would_need_is_refused():
    policy = stirred_policy(tiny(attention__enabled=False, latent__enabled=False))
    inputs, belief = random_inputs(policy.config, 1), policy.initial_belief(1)
    with pytest.raises(InputError, match="no AVA to choose visual tokens by"):
        policy.decide(inputs, belief, keep_ratio=0.5)
    with pytest.raises(InputError, match="no latent loop to leave"):
        policy.decide(inputs, belief, exit_threshold=0.5)
    policy.decide(inputs, belief, keep_ratio=1.0, depth=0)
