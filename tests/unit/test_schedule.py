"""The order of decisions: complete, reproducible, independent of workers and interruptions, shares as asked for."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.demonstrations.schedule import DecisionSchedule, Visit, decision_steps
from avavla_ray.errors import InputError

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=6)
MIXTURES = st.lists(LENGTHS, min_size=1, max_size=3)


@given(mixture=MIXTURES, streams=st.integers(1, 5), stride=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_stream_walks_whole_episodes_in_order(mixture, streams, stride, seed):
    schedule = DecisionSchedule(mixture, streams, stride, seed)
    walks = list(zip(*(schedule.advance() for _ in range(80)), strict=True))
    for walk in walks:
        assert walk[0].start
        for before, after in itertools.pairwise(walk):
            if after.start:
                assert (after.step, after.position) == (0, 0)
                assert before.step + stride >= schedule.length(before.draw), "an episode was left before its end"
            else:
                assert after.draw == before.draw
                assert after.position == before.position + 1
                gap = after.step - before.step
                assert 1 <= gap <= stride
                assert gap == stride or before.step == 0, "only the first stride may be short"


def test_streams_do_not_walk_in_step():
    schedule = DecisionSchedule([[100] * 30], 32, 8, 0)
    for _ in range(60):
        visits = schedule.advance()
    places = [visit.step // 25 for visit in visits]
    assert all(places.count(quarter) >= 2 for quarter in range(4)), "a batch must hold all parts of the task"


@given(length=st.integers(1, 40), stride=st.integers(1, 9))
def test_all_phases_together_visit_every_step(length, stride):
    visited = {step for phase in range(1, stride + 1) for step in decision_steps(length, stride, phase)}
    assert visited == set(range(length))


def first_draws(visits: list[list[Visit]], dataset: int) -> list[int]:
    """Episodes of a data set in the order in which they were handed out."""
    draws = {visit.draw.number: visit.draw for turn in visits for visit in turn}
    return [draw.episode for _, draw in sorted(draws.items()) if draw.dataset == dataset]


@given(mixture=MIXTURES, streams=st.integers(1, 4), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_pass_over_a_data_set_hands_out_every_episode_once(mixture, streams, seed):
    schedule = DecisionSchedule(mixture, streams, 8, seed)
    visits = [schedule.advance() for _ in range(100)]
    for dataset, lengths in enumerate(mixture):
        drawn = first_draws(visits, dataset)
        for begin in range(0, len(drawn) - len(lengths) + 1, len(lengths)):
            assert sorted(drawn[begin : begin + len(lengths)]) == list(range(len(lengths)))


def test_passes_differ_in_order_and_phase_and_so_do_seeds():
    def walked(seed: int) -> list[list[Visit]]:
        schedule = DecisionSchedule([[40] * 12, [40] * 12], 2, 8, seed)
        return [schedule.advance() for _ in range(200)]

    episodes = [first_draws(walked(0), dataset) for dataset in (0, 1)]
    assert episodes[0][:12] != episodes[0][12:24]
    assert episodes[0][:12] != episodes[1][:12]
    assert first_draws(walked(1), 0) != episodes[0]
    assert len({visit.draw.phase for turn in walked(0) for visit in turn}) > 4


@given(mixture=MIXTURES, streams=st.integers(1, 5), cuts=st.lists(st.integers(0, 25), max_size=5))
@settings(max_examples=60, deadline=None)
def test_interruptions_lose_and_repeat_nothing(mixture, streams, cuts):
    undisturbed = DecisionSchedule(mixture, streams, 4, 1)
    expected = [undisturbed.advance() for _ in range(sum(cuts) + 10)]
    schedule, found = DecisionSchedule(mixture, streams, 4, 1), []
    for cut in cuts:
        found += [schedule.advance() for _ in range(cut)]
        state = json.loads(json.dumps(schedule.state()))
        for _ in range(3):
            schedule.advance()  # made ahead, lost with the process
        schedule = DecisionSchedule(mixture, streams, 4, 1)
        schedule.restore(state)
    found += [schedule.advance() for _ in range(10)]
    assert found == expected
    positions = defaultdict(list)
    for turn in found:
        for visit in turn:
            positions[visit.draw].append(visit.position)
    for draw, seen in positions.items():
        assert seen == list(range(seen[0], seen[-1] + 1))
        assert draw.number < streams or seen[0] == 0, "only a stream's first episode begins in the middle"


@given(
    mixture=MIXTURES, streams=st.integers(1, 6), world=st.integers(1, 6), walked=st.integers(0, 30),
    seed=st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_requests_are_what_the_walk_then_needs(mixture, streams, world, walked, seed):
    schedule = DecisionSchedule(mixture, streams, 4, seed)
    for _ in range(walked):
        schedule.advance()
    state, mine = schedule.state(), range(world - 1, streams, world)
    if not mine:
        return
    requests = list(itertools.islice(schedule.requests(mine), 12))
    assert schedule.state() == state, "running ahead must not move the walk"
    needed, held = [], {}
    while len(needed) < 12:
        visits = schedule.advance()
        for stream in mine:
            if held.get(stream) != visits[stream].draw:
                held[stream] = visits[stream].draw
                needed.append((visits[stream].draw, visits[stream].position))
    assert requests == needed[:12]


@given(
    mixture=st.lists(LENGTHS, min_size=2, max_size=4), streams=st.integers(1, 6), turns=st.integers(1, 120),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_shares_hold_to_within_what_is_under_way(mixture, streams, turns, weights):
    weights = weights[: len(mixture)]
    schedule = DecisionSchedule(mixture, streams, 4, 0, weights)
    visited = Counter(visit.draw.dataset for _ in range(turns) for visit in schedule.advance())
    longest = max(len(decision_steps(length, 4, 1)) for lengths in mixture for length in lengths)
    for dataset, weight in enumerate(weights):
        wanted = weight / sum(weights) * streams * turns
        # Each stream holds one episode that was counted whole; one more may be handed out early, or wait its turn.
        assert abs(visited[dataset] - wanted) <= longest * (streams + len(mixture))


def test_handed_out_shares_are_exact_to_within_an_episode():
    schedule = DecisionSchedule([[80] * 7, [33] * 20, [10] * 3], 4, 8, 3, [1.0, 2.0, 5.0])
    for _ in range(2000):
        schedule.advance()
        decisions = schedule.state()["decisions"]
        for done, share in zip(decisions, (1 / 8, 2 / 8, 5 / 8), strict=True):
            assert abs(done - share * sum(decisions)) <= 11


def test_without_weights_data_sets_of_any_size_end_their_passes_together():
    mixture = [[50] * 8, [50] * 80, [10, 200] * 4]
    schedule = DecisionSchedule(mixture, 4, 8, 0)
    for _ in range(4000):
        schedule.advance()
    passes = [handed / len(lengths) for handed, lengths in zip(schedule.state()["handed"], mixture, strict=True)]
    assert max(passes) > 8
    assert max(passes) - min(passes) < 0.5


@pytest.mark.parametrize(
    ("lengths", "streams", "weights", "message"),
    [
        ([], 1, None, "no demonstration"),
        ([[3], []], 1, None, "no demonstration"),
        ([[3]], 0, None, "0 streams: give at least 1"),
        ([[3], [4]], 1, [1.0], r"weights \[1.0\]: give a positive number for each of 2"),
        ([[3], [4]], 1, [1.0, 0.0], "give a positive number"),
        ([[3], [4]], 1, [1.0, float("nan")], "give a positive number"),
    ],
)
def test_what_makes_no_sense_is_refused(lengths, streams, weights, message):
    with pytest.raises(InputError, match=message):
        DecisionSchedule(lengths, streams, 8, 0, weights)


def test_a_walk_of_other_size_cannot_be_continued():
    state = DecisionSchedule([[5, 6]], 2, 8, 0).state()
    with pytest.raises(InputError, match="3 streams cannot continue a walk of 2"):
        DecisionSchedule([[5, 6]], 3, 8, 0).restore(state)
    with pytest.raises(InputError, match="2 data sets cannot continue a walk of 1"):
        DecisionSchedule([[5, 6], [7]], 2, 8, 0).restore(state)
