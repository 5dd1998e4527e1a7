"""What benchmarks/bc.py measures with, in seconds."""

from __future__ import annotations

import pytest

from avavla_ray.demonstrations.mixture import open_mixture
from avavla_ray.policy.config import preset
from avavla_ray.policy.openvla.cost import decision_cost
from avavla_ray.training.cloning_worker import CloningWork
from avavla_ray.training.settings import CloningSettings, Stage
from benchmarks.bc import summary
from benchmarks.cloning_cost.accelerator import GpuPlan, lora_settings, measure_steps, training_flops
from benchmarks.cloning_cost.demos import write_demonstrations
from benchmarks.cloning_cost.workers import Plan, compare, fit
from benchmarks.policy_cost.subjects import PROMPT_TOKENS


def turn(steps: int, wall: float, cpu: float, waited: float = 0.0) -> dict[str, float]:
    return {"steps": steps, "wall_s": wall, "cpu_s": cpu, "main_cpu_s": cpu / 2, "queued_s": 0.2, "waited": waited}


def test_each_turn_is_compared_with_the_bare_ones_around_it():
    bares = [turn(10, 1.0, 0.5), turn(10, 1.0, 0.5), turn(5, 1.0, 0.25)]
    numbers = summary([turn(9, 1.0, 0.9, 0.1), turn(6, 1.0, 0.3)], bares, streams=4)
    assert numbers["ratio_to_bare_loop"] == pytest.approx((0.9 + 0.8) / 2)
    bare = [0.08, 0.08, 0.16]  # seconds a step without queueing
    expected = ((bare[0] + bare[1]) / 2 / (0.8 / 9) + (bare[1] + bare[2]) / 2 / (0.8 / 6)) / 2
    assert numbers["ratio_undisturbed"] == pytest.approx(expected)
    assert numbers["ratio_to_bare_loop_worst_turn"] == pytest.approx(0.8)
    assert numbers["cpu_ratio_to_bare_loop"] == pytest.approx((0.5 + 1.0) / 2)
    assert numbers["cpu_ratio_own_thread"] == pytest.approx(4 / 3)
    assert numbers["data_wait_share"] == pytest.approx(0.05)
    assert numbers["decisions_per_s"] == pytest.approx(4 * 7.5)
    assert numbers["bare_spread"] == pytest.approx(2.0)


def test_the_arithmetic_of_adapters_lies_between_a_forward_pass_and_full_training():
    config = preset("openvla_oft_7b")
    parts = decision_cost(config.backbone, text_tokens=PROMPT_TOKENS)
    forward = sum(part.flops for part in parts)
    towers = sum(part.flops for part in parts if part.part in ("dino", "siglip"))
    assert 2 * forward - towers < training_flops(config) < 1.05 * (2 * forward - towers)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(240)
def test_loops_take_turns_in_ray_train_and_say_what_they_did(ray_cluster, tmp_path):
    write_demonstrations(tmp_path / "demos")
    settings = CloningSettings(minutes=60, streams=4, workers=1, stages=(Stage("cloning"),), held_out=0.0)
    work = CloningWork(settings, preset("tiny"), open_mixture([tmp_path / "demos"]), tmp_path, "", {})
    found = fit(compare, Plan(work, rounds=1, seconds=0.6, pipeline_s=0.4), settings, tmp_path)
    assert (len(found["bare"]), len(found["ours"])) == (2, 1)
    for each in found["bare"] + found["ours"]:
        assert each["steps"] > 0
        assert each["wall_s"] > 0.2
        assert not each["queued_s"] > each["wall_s"]
        assert 0 < each["main_cpu_s"] <= each["cpu_s"]
    assert len(found["pipeline"]) == 4
    assert min(found["pipeline"].values()) > 0
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_step_with_adapters_is_measured_where_there_is_no_gpu_too(ray_cluster, tmp_path):
    settings = lora_settings(streams=2)
    numbers = fit(measure_steps, GpuPlan("openvla_oft_tiny", settings, tmp_path, 0.2), settings, tmp_path)
    assert numbers["gpu_step_s"] > 0
    assert numbers["gpu_tokens_per_s"] == pytest.approx(2 * numbers["gpu_tokens_per_decision"] / numbers["gpu_step_s"])
    assert "gpu_model_flops_utilisation" not in numbers
