"""The parts of the policy benchmark that turn seconds into numbers."""

from __future__ import annotations

import math

import pytest
import torch

from avavla_ray.errors import InputError
from benchmarks.policy_cost.batches import batch_table, decision_flops, measure_batches, peak_flops
from benchmarks.policy_cost.depth import measure_depths
from benchmarks.policy_cost.subjects import MAX_DEPTH, decider, deepened, make_loop, make_policy, thinker
from benchmarks.policy_cost.timing import time_in_turns
from tests.support.policies import tiny


class Work:
    """A clock that only its own queries move on, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def query(self, seconds: float):
        def run() -> None:
            self.now += seconds

        return run


def test_cases_take_turns_and_queries_count_with_their_medians():
    work = Work()
    turns = []

    def noted(name, seconds):
        run = work.query(seconds)
        return lambda: (turns.append(name), run())

    taken = time_in_turns(
        {"a": [noted("a", 0.01), noted("a", 0.03)], "b": [noted("b", 0.02), noted("b", 0.02)]}, 0, lambda: work.now
    )
    assert turns == ["a", "a", "b", "b", *(3 * ["a", "b", "a", "b"])]
    assert taken["a"].mean == pytest.approx(20)
    assert taken["a"].p90 == pytest.approx(30)
    assert taken["b"].mean == pytest.approx(20)


def test_adaptive_is_compared_with_the_fixed_depth_at_its_mean():
    work = Work()

    def query(depth: int = 0, exit_threshold: float | None = None) -> torch.Tensor:
        steps = torch.tensor([1, 4]) if exit_threshold is not None else torch.tensor([depth, depth])
        work.now += 1e-3 * (10 + 2 * float(steps.float().mean()) + (0.75 if exit_threshold is not None else 0))
        return steps

    sweep = measure_depths([query], 0, lambda: work.now, depths=(0, 1, 3, 5), thresholds=(0.5,))
    assert sweep.steps == {0.5: 2.5}
    assert sweep.at_depth(2.5) == pytest.approx(15)
    assert sweep.at_depth(0) == pytest.approx(10)
    assert sweep.adaptive_over_fixed(0.5) == sweep.worst_ratio() == pytest.approx(15.75 / 15)
    assert sweep.flat("x.")["x.threshold_0.50_over_fixed"] == pytest.approx(1.05)


def test_a_deeper_policy_is_the_same_on_the_same_weights():
    policy = make_policy("tiny", None, "cpu", "float32")
    deep = deepened(policy)
    assert (policy.config.latent.max_steps, deep.config.latent.max_steps) == (5, MAX_DEPTH)
    pointers = {name: tensor.data_ptr() for name, tensor in policy.state_dict().items()}
    assert pointers == {name: tensor.data_ptr() for name, tensor in deep.state_dict().items()}
    query = decider(policy, 3, "cpu", 1)[0]
    assert query(depth=MAX_DEPTH).tolist() == [MAX_DEPTH] * 3
    assert query(exit_threshold=1.0).tolist() == [5] * 3
    assert query(exit_threshold=0.0).tolist() == [1] * 3


def test_samples_of_an_untrained_gate_leave_at_different_depths():
    torch.manual_seed(0)
    loop = make_loop(tiny().latent, "cpu")
    steps = thinker(loop, 256, "cpu", 1, 5)[0](exit_threshold=loop.config.exit_threshold)
    assert 0.2 < (steps == 1).float().mean() < 0.6
    assert (steps > 1).any()


@pytest.mark.parametrize("preset", ["tiny", "openvla_oft_tiny"])
def test_batches_are_measured_with_every_share_of_tokens(preset):
    policy = make_policy(preset, None, "cpu", "bfloat16")
    ticks = iter(range(1_000_000))
    rows = measure_batches(policy, (1, 3), (1.0, 0.3), "cpu", 0, lambda: 1e-3 * next(ticks), depth=5, peak=1e9)
    assert [(row.batch, row.keep) for row in rows] == [(1, 1.0), (1, 0.3), (3, 1.0), (3, 0.3)]
    numbers = rows[2].flat()
    assert numbers["batch_3_keep_1_ms"] == pytest.approx(1)
    assert numbers["batch_3_keep_1_decisions_per_s"] == pytest.approx(3000)
    assert 1 <= numbers["batch_3_keep_1_adaptive_steps"] <= 5
    if preset == "tiny":
        assert "batch_3_keep_1_peak_share" not in numbers
    else:
        assert rows[2].peak_share == pytest.approx(3 * rows[0].peak_share)
        assert rows[0].peak_share == pytest.approx(decision_flops(policy.config, 1.0) / 1e-3 / 1e9)
        assert rows[1].peak_share < rows[0].peak_share
    assert batch_table(rows).count("\n") == 6


def test_a_peak_that_is_not_known_is_asked_for(monkeypatch):
    assert math.isnan(peak_flops("cpu", 0))
    assert peak_flops("cuda", 100) == 1e14
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    assert peak_flops("cuda", 0) == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA Unheard-of")
    with pytest.raises(InputError, match="Unheard-of' is not listed: give --peak-tflops"):
        peak_flops("cuda", 0)
