"""Sequential tests: their error rates by simulation, over all times of looking together, and that they end early."""

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.sequential import BettingTest, PairedTest

RUNS = 2000


def share_rejected(values, mean, error_rate, seed=0, runs=RUNS):
    """How often the claim is rejected at any time, over orders; and how many values that took where it was."""
    drawn, rejected, looks = np.random.default_rng(seed), 0, []
    for _ in range(runs):
        test = BettingTest(mean, len(values), error_rate)
        for count, value in enumerate(drawn.permutation(values), 1):
            if test.see(float(value)):
                rejected += 1
                looks.append(count)
                break
    return rejected / runs, looks


@pytest.mark.parametrize("error_rate", [0.05, 0.2])
@pytest.mark.parametrize(
    "values",
    [
        np.repeat([0.0, 1.0], 50),
        np.repeat([0.0, 0.5, 1.0], [15, 70, 15]),
        np.repeat([0.0, 1.0], [90, 10]),
        np.linspace(0, 1, 60),
    ],
    ids=["coin", "pairs", "rare", "even"],
)
def test_a_true_claim_is_rejected_no_more_often_than_stated(values, error_rate):
    rate, _ = share_rejected(values, float(values.mean()), error_rate)
    # Three standard errors of so many runs.
    assert rate <= error_rate + 3 * np.sqrt(error_rate * (1 - error_rate) / RUNS)


def test_a_true_claim_with_room_to_spare_is_hardly_ever_rejected():
    rate, _ = share_rejected(np.repeat([0.0, 1.0], [60, 40]), 0.5, 0.05)
    assert rate < 0.02


def test_a_false_claim_is_rejected_long_before_the_end():
    values = np.repeat([0.0, 1.0], [100, 400])
    rate, looks = share_rejected(values, 0.5, 0.05, runs=300)
    assert rate == 1.0
    assert np.median(looks) < 40


def test_every_false_claim_is_rejected_when_all_is_known():
    values = np.repeat([0.0, 1.0], [49, 51])
    rate, _ = share_rejected(values, 0.5, 0.05, runs=100)
    assert rate == 1.0


def test_claims_at_the_ends():
    nobody = BettingTest(0.0, 5)
    assert not nobody.see(0.0)
    assert nobody.see(0.1), "one above 0 is proof"
    anything = BettingTest(1.0, 3)
    assert [anything.see(1.0) for _ in range(3)] == [False] * 3


def test_what_is_refused():
    with pytest.raises(InputError, match="error rate 0"):
        BettingTest(0.5, 10, 0.0)
    with pytest.raises(InputError, match="at least one"):
        BettingTest(0.5, 0)
    test = BettingTest(0.5, 1)
    with pytest.raises(ValueError, match="outside"):
        test.see(1.5)
    test.see(0.0)
    with pytest.raises(ValueError, match="no more"):
        test.see(0.0)


def paired_run(drawn, candidate, rival, error_rate=0.05):
    test = PairedTest(dict(enumerate(rival)), error_rate)
    for count, episode in enumerate(drawn.permutation(len(rival)), 1):
        if test.see(int(episode), bool(candidate[episode])):
            return count, test
    return None, test


def test_a_candidate_as_good_as_its_rival_is_called_worse_no_more_often_than_stated():
    drawn = np.random.default_rng(1)
    candidate, rival = np.zeros(100, bool), np.zeros(100, bool)
    candidate[:70], rival[10:80] = True, True  # 70 each, on different episodes
    ends = [paired_run(drawn, candidate, rival)[0] for _ in range(RUNS)]
    rate = np.mean([end is not None for end in ends])
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


def test_a_hopeless_candidate_is_noticed_early_and_its_gain_estimated():
    drawn = np.random.default_rng(2)
    rival = np.arange(200) < 180
    candidate = np.arange(200) < 80
    ends, gains = [], []
    for _ in range(200):
        end, test = paired_run(drawn, candidate, rival)
        ends.append(end)
        gains.append(test.mean_gain)
    assert all(end is not None for end in ends)
    assert np.median(ends) < 25
    assert -0.75 < np.mean(gains) < -0.45


def test_episodes_that_only_one_has_played_tell_nothing():
    test = PairedTest({"a": True})
    assert not test.see("b", False)
    assert test.mean_gain == 0.0
    test.skip("b")
    assert test.see("a", False), "the whole population is known, and the rival was better"
    assert test.mean_gain == -1.0
