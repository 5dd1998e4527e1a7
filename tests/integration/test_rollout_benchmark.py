"""What benchmarks/rollout.py and benchmarks/scale.py measure with, in seconds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from actors.orders import Order
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.checkpoint import load_checkpoint
from benchmarks.rollout import Settings, make_checkpoint, numbers_of
from benchmarks.rollout_cost.fleet import Rate, rate_of
from benchmarks.rollout_cost.processor import processor_seconds, spent
from benchmarks.rollout_cost.variants import Variant, layouts, table
from benchmarks.scale import Found
from benchmarks.scale import Settings as ScaleSettings
from benchmarks.scale import numbers_of as scale_numbers_of
from benchmarks.scale_cost.sleeping import Pace, Shape, SleepingRunner

SHAPE = Shape(steps=5, latent=16, update=4, encoding=24, tokens=4)


def rate(decisions_per_s: float, cpu_ms: float) -> Rate:
    return Rate(10.0, 10 * decisions_per_s, Counter(runners=cpu_ms * decisions_per_s / 100), [decisions_per_s])


def test_a_runner_s_rate_does_not_depend_on_where_a_batch_is_cut_off():
    beats = [(0.5 * beat, 8) for beat in range(20)]
    assert rate_of(beats, 0.1, 6.4) == pytest.approx(16)
    assert rate_of(beats, 0.4, 6.6) == pytest.approx(16)
    assert rate_of([(1.0, 3)], 0.0, 2.0) == pytest.approx(1.5)


def test_shares_are_of_the_simulators_alone_and_the_speedup_is_over_the_serial_loop():
    rates = {"simulator_only": rate(80, 25), "rollout": rate(72, 27.5), "with_learner": rate(64, 31)}
    numbers = numbers_of(rates, {"serial": 20.0, "serial_without_updates": 22.0})
    assert numbers["share_of_simulator_only"] == pytest.approx(0.9)
    assert numbers["share_with_learner"] == pytest.approx(0.8)
    assert numbers["speedup_vs_serial"] == pytest.approx(64 * 8 / 20)
    assert numbers["cpu_share_of_simulator_only"] == pytest.approx(25 / 27.5)


def test_processor_time_of_this_process_is_counted():
    before = processor_seconds(())
    total = sum(number * number for number in range(3_000_000))
    took = spent(before, processor_seconds(()))
    assert total > 0
    assert 0.02 < took["driver"] < 30


def test_layouts_differ_in_runners_simulators_buffers_and_placement():
    found = layouts(2, 8)
    assert len(set(found)) == len(found)
    assert {place for *_, place in found} == {"copy", "server"}
    text = table([Variant(*layout, rate(80, 25), rate(72, 27)) for layout in found])
    assert len(text.splitlines()) == 2 + len(found)


def test_the_policy_without_a_checkpoint_leaves_its_loop_as_the_paper_s_does(tmp_path):
    policy = load_checkpoint(make_checkpoint(Settings(preset="tiny"), tmp_path / "tiny")).policy
    score = torch.sigmoid(policy.gate_logit(torch.randn(10, policy.config.latent.width)))
    assert score.detach().numpy() == pytest.approx(0.4)


@pytest.mark.ray
def test_a_sleeping_runner_delivers_fragments_at_its_pace(ray_cluster):
    import ray

    pace = Pace(step_ms=2.0, jitter=0.1, episode=9, simulators=8)
    runner = SleepingRunner(1, pace, SHAPE)
    handle = WeightHandle(3, (ray.put(np.ones(5, np.float32)),))
    runner.start(handle)
    taken, seconds, finished, episodes = 0, 0.0, [], []
    while taken < 300:
        fragments, report = runner.deliver(Order(handle, 4))
        assert report.decisions == sum(map(len, fragments)) > 0
        for fragment in fragments:
            assert isinstance(fragment, Fragment)
            assert 1 <= len(fragment) <= 4
            assert fragment.z.shape == (len(fragment), 6, 16)
            assert fragment.oldest_version == 3
        taken, seconds = taken + report.decisions, seconds + report.seconds
        finished += [summary.episode_id for summary in report.finished]
        episodes += [summary.decisions for summary in report.finished]
    assert len(set(finished)) == len(finished) > 0
    assert set(episodes) == {9}
    assert 0.1 < taken / seconds / (8 * pace.decisions_per_s) < 1.6


def test_the_cost_of_many_simulators_is_compared_with_that_of_few():
    found = {32: Found(2.0, 0.1, 0.2, 1000, 100, 3, [0.01]), 512: Found(2.0, 1.2, 1.0, 10_000, 500, 30, [0.02, 0.04])}
    numbers = scale_numbers_of(ScaleSettings(), found)
    assert numbers["cost_per_decision_512_over_32"] == pytest.approx(1.2)
    assert numbers["pace_512"] == pytest.approx(5000 / (512 * 25))
    assert numbers["broadcast_ms_512"] == pytest.approx(30)
