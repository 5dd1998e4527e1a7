"""Who plays what next in an evaluation, and what becomes of episodes whose simulator dies."""

import pytest

from actors.evaluation_pool import Episode
from actors.evaluation_queue import ATTEMPTS, EvaluationQueue
from actors.watchdog import Outcome, Watchdog
from avavla_ray.evaluation.exit_setting import ExitSetting

SETTING = ExitSetting(fixed_depth=1)


class Handed:
    """Takes what is handed over; ends the call after so many."""

    def __init__(self, enough=10**6):
        self.records, self.enough = [], enough

    def __call__(self, episode, record, film):
        self.records.append((episode, record))
        return len(self.records) >= self.enough


def queue_of(states, handed=None, loaded=None, watchdog=None):
    """So many initial states of task 0, 1, ..."""
    episodes = [Episode(SETTING, task, state) for task, count in enumerate(states) for state in range(count)]
    return EvaluationQueue(episodes, {} if loaded is None else loaded, watchdog or Watchdog(()), handed or Handed())


def test_an_actor_keeps_its_task_then_takes_a_fresh_one_then_helps_where_most_is_left():
    queue = queue_of([3, 5, 1])
    assert [queue.take(actor)[0].task for actor in (0, 1)] == [0, 1]
    assert [queue.take(0)[0].initial_state for _ in range(2)] == [1, 2]
    assert queue.take(0)[0].task == 2  # nobody has it
    assert len(queue) == 4
    assert queue.take(0)[0] == Episode(SETTING, 1, 1)
    taken = [queue.take(actor) for actor in (2, 1, 0, 2)]
    assert [play.initial_state for play, _ in taken[:3]] == [2, 3, 4]
    assert taken[3] is None


def test_helpers_spread_over_the_tasks():
    loaded = {0: 0, 1: 1, 2: 1}
    queue = queue_of([4, 5], loaded=loaded)
    assert queue.take(3)[0].task == 0  # 4 for one actor are more than 5 for two
    assert loaded == {0: 0, 1: 1, 2: 1, 3: 0}


def test_an_aborted_one_is_played_again_and_then_given_up():
    handed, watchdog = Handed(), Watchdog(())
    queue = queue_of([2], handed, watchdog=watchdog)
    first, attempt = queue.take(0)
    assert attempt == 1
    queue.abort(first, "crash", "it died")
    second, _ = queue.take(0)
    queue.settle(second, "played", None)  # episodes that end in between: no quarantine
    for number in range(2, ATTEMPTS + 1):
        again, attempt = queue.take(0)
        assert (again, attempt) == (first, number)
        queue.abort(again, "crash", "it died")
        watchdog.saw(Outcome(0))
    assert queue.take(0) is None
    assert [episode for episode, _ in handed.records] == [second, first]
    assert handed.records[1][1].error == "crash: it died"
    assert not handed.records[1][1].quarantined


def test_a_task_that_only_dies_is_given_up_with_all_that_is_left_of_it():
    handed, watchdog = Handed(), Watchdog(())
    queue = queue_of([5, 1], handed, watchdog=watchdog)
    for _ in range(3):
        queue.abort(queue.take(0)[0], "physics", "it diverged")
    assert len(handed.records) == 5
    assert all(record.quarantined and record.task == 0 for _, record in handed.records)
    assert queue.take(0)[0].task == 1
    later = Handed()
    assert len(queue_of([2, 1], later, watchdog=watchdog)) == 1
    assert len(later.records) == 2


def test_a_sick_machine_quarantines_nothing_and_what_died_on_it_is_played_elsewhere():
    """All that actor 0 plays dies, while actor 1 is at its first episode, which it and all others end well."""
    handed, watchdog = Handed(), Watchdog((), witnesses=2)
    queue = queue_of([4, 5], handed, watchdog=watchdog)
    queue.actors = 2
    well, _ = queue.take(1)
    while (sick := queue.take(0)) is not None:  # by itself it stops when it has seen all that is left die
        queue.abort(sick[0], "crash", "the disk is full", 0)
    assert len(queue) == 8
    assert not watchdog.quarantined
    while well is not None:
        queue.settle(well, "played", None, 1)
        well = (queue.take(1) or [None])[0]
    assert [record for _, record in handed.records] == ["played"] * 9
    assert not queue


def test_a_retry_comes_first_on_another_actor_and_a_task_that_two_saw_die_is_quarantined():
    handed, watchdog = Handed(), Watchdog((), witnesses=2)
    queue = queue_of([5, 5], handed, watchdog=watchdog)
    queue.actors = 2
    first, _ = queue.take(0)
    queue.settle(queue.take(1)[0], "played", None, 1)
    queue.abort(first, "physics", "it diverged", 0)
    assert queue.take(1) == (first, 2)
    queue.abort(first, "physics", "it diverged", 1)
    assert not watchdog.quarantined
    queue.abort(queue.take(0)[0], "physics", "it diverged", 0)
    assert list(watchdog.quarantined) == [first.task]
    assert len(queue) == 4
    assert sum(episode.task == first.task for episode, _ in handed.records) == 5


def test_a_machine_that_goes_with_all_its_actors_quarantines_nothing():
    handed, watchdog = Handed(), Watchdog((), witnesses=2)
    queue = queue_of([3] * 4, handed, watchdog=watchdog)
    queue.actors = 9
    for actor, (play, _) in enumerate([queue.take(actor) for actor in range(8)]):
        queue.abort(play, "crash", "the node has died", actor, "gone", shared=True)
    assert not watchdog.quarantined
    while (taken := queue.take(8)) is not None:
        queue.settle(taken[0], "played", None, 8, "there")
    assert [record for _, record in handed.records] == ["played"] * 12


def test_a_task_that_takes_its_actors_with_it_every_time_is_quarantined():
    handed, watchdog = Handed(), Watchdog((), witnesses=2)
    queue, deaths = queue_of([9], handed, watchdog=watchdog), 0
    queue.actors = 2
    while queue:
        for actor in (0, 1):
            if (taken := queue.take(actor)) is not None:
                queue.abort(taken[0], "crash", "its process died", actor, shared=True)
                deaths += 1
    assert list(watchdog.quarantined) == [0]
    assert deaths < 9 * ATTEMPTS
    assert len(handed.records) == 9


def test_nothing_more_is_begun_once_enough_is_known():
    handed = Handed(enough=1)
    queue = queue_of([4], handed)
    (first, _), (second, _), (third, _) = (queue.take(actor) for actor in range(3))
    queue.settle(first, "played", None)
    assert queue.take(0) is None
    queue.settle(second, "played too", None)  # what runs is handed over
    queue.abort(third, "crash", "it died")  # what dies meanwhile is nobody's any more
    assert queue.take(1) is None
    assert [record for _, record in handed.records] == ["played", "played too"]


@pytest.mark.parametrize("setting", [SETTING, ExitSetting(exit_threshold=(0.5, 0.6))])
def test_a_lost_episode_says_which_it_was(setting):
    record = Episode(setting, 3, 7).lost("why", 2, quarantined=True)
    assert (record.setting, record.task, record.initial_state, record.error) == (setting.label, 3, 7, "why")
    assert record.quarantined
    assert not record.success
