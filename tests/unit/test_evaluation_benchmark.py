"""What benchmarks/evaluation.py makes of its turns."""

import pytest

from actors.evaluation_pool import Episode
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from benchmarks.evaluation import Settings, Turns, make_agent, numbers_of

SETTING = ExitSetting(fixed_depth=0)


def turns(seconds, tasks, states, latent_steps=5):
    turns = Turns(list(seconds), cpu_s=3.0 * tasks)
    for task in range(tasks):
        for state in range(states):
            record = EpisodeRecord(SETTING.label, task, state, False, 280, [latent_steps], [7.0 * task + state])
            turns.records[Episode(SETTING, task, state)] = record
    return turns


def test_the_speedup_is_of_episodes_and_of_the_middle_turn():
    numbers = numbers_of(turns([6.0, 6.0, 12.0], 1, 3), turns([6.0, 8.0, 12.0], 2, 3))
    assert numbers["speedup_vs_one_process"] == pytest.approx(2.0)  # of 2.0, 1.5 and 2.0
    assert numbers["speedup_vs_one_process_worst"] == pytest.approx(1.5)
    assert numbers["episodes_per_hour"] == pytest.approx(6 / 26 * 3600)
    assert numbers["minutes_for_500_episodes"] == pytest.approx(500 * 26 / 6 / 60)
    assert numbers["cpu_s_per_episode"] == pytest.approx(1.0)
    assert numbers["env_steps_per_s_one_process"] == pytest.approx(3 * 280 / 24)


def test_records_that_differ_are_counted_milliseconds_apart():
    one, many = turns([1.0], 1, 3), turns([1.0], 2, 3)
    for record in one.records.values():
        record.milliseconds = [1.0]
    assert numbers_of(one, many)["episodes_compared"] == 3
    assert numbers_of(one, many)["episodes_that_differ"] == 0
    assert numbers_of(one, turns([1.0], 2, 3, latent_steps=4))["episodes_that_differ"] == 3


def test_random_weights_think_to_full_depth_at_the_paper_s_threshold():
    agent = make_agent(Settings(preset="tiny"))
    gate = agent.policy.loop.exit_gate
    assert (gate.leave[1].weight == 0).all()
    assert (gate.leave[1].bias == 0).all()  # a score of 1/2, under the threshold
