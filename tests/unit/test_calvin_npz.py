"""CALVIN's data set: described spans become episodes, and whatever is wrong with a step is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avavla_ray.demonstrations.importers.source import Skipped, open_source
from avavla_ray.demonstrations.schema import Episode, decode_image
from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.tasks import TASKS
from tests.support.published_demos import write_calvin

SPANS = [("open_drawer", "grasp the handle and pull", 5), ("lift_red_block_table", "lift the red thing", 4)]


def episodes_of(folder: Path, **options) -> list:
    source = open_source("calvin", folder, **{"suite": "calvin_abc", "image_size": 64, **options})
    return [found for member in source.members() for found in source.read(member)]


def test_spans_come_out_as_our_simulator_gives_them(tmp_path):
    steps = write_calvin(tmp_path, SPANS)
    first, second = episodes_of(tmp_path)
    assert isinstance(first, Episode)
    assert isinstance(second, Episode)
    assert [(e.info.task, e.info.steps, e.info.instruction, e.info.suite) for e in (first, second)] == [
        (TASKS.index("open_drawer"), 5, SPANS[0][1], "calvin_abc"),
        (TASKS.index("lift_red_block_table"), 4, SPANS[1][1], "calvin_abc"),
    ]
    for row, step in enumerate(steps[5:]):
        np.testing.assert_array_equal(second.actions[row], step["rel_actions"].astype(np.float32))
        robot = step["robot_obs"].astype(np.float32)
        expected = [*robot[:3], step["robot_obs"][3] % (2 * np.pi), *robot[4:7], robot[14]]
        np.testing.assert_array_equal(second.proprio[row], np.array(expected, np.float32))
        for camera, name in enumerate(("rgb_static", "rgb_gripper")):
            small = Image.fromarray(step[name]).resize((64, 64), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(decode_image(second.images[row][camera]), np.asarray(small))


def test_a_split_is_as_good_as_the_whole(tmp_path):
    write_calvin(tmp_path, SPANS)
    whole, split = episodes_of(tmp_path), episodes_of(tmp_path / "training")
    assert [episode.info for episode in whole] == [episode.info for episode in split]


def test_an_unknown_task_is_skipped(tmp_path):
    write_calvin(tmp_path, [("wash_dishes", "do the dishes", 3), SPANS[0]])
    skipped, episode = episodes_of(tmp_path)
    assert skipped == Skipped("calvin_abc-000000", "unknown task: CALVIN has no wash_dishes")
    assert episode.info.attempt == 1


def rewrite(folder: Path, **changes) -> None:
    path = folder / "training" / "episode_0000002.npz"
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **{key: value for key, value in {**content, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rel_actions": None}, "missing: rel_actions of episode_0000002.npz"),
        ({"rel_actions": np.zeros(6)}, r"wrong shape: rel_actions of episode_0000002.npz is \(6,\), expected \(7\)"),
        ({"rel_actions": np.full(7, np.nan)}, "not finite: rel_actions"),
        ({"rel_actions": np.full(7, 2.0)}, "out of range: action 0 of step 2 is 2"),
        ({"rel_actions": np.zeros(7)}, "out of range: the gripper's command of step 2 is 0, not -1 or 1"),
        ({"rel_actions": np.zeros(7, int)}, "wrong dtype: rel_actions"),
        ({"rgb_static": np.zeros((0, 0, 3), np.uint8)}, r"wrong shape: rgb_static of .* is \(0, 0, 3\), expected some"),
        (
            {"rgb_static": np.zeros((90, 90, 3), np.uint8)},
            r"wrong shape: rgb_static of .* is \(90, 90, 3\), before \(200",
        ),
        ({"robot_obs": np.full(15, np.inf)}, "not finite: robot_obs"),
        ({"scene_obs": np.zeros(23)}, "wrong shape: scene_obs"),
        ({"rgb_static": np.zeros((200, 200), np.uint8)}, "wrong shape: rgb_static"),
        ({"rgb_gripper": np.zeros((84, 84, 3))}, "wrong dtype: rgb_gripper"),
        ({"robot_obs": np.array([{}] * 15)}, "not readable: episode_0000002.npz"),
    ],
)
def test_a_broken_step_is_named_and_the_other_span_is_read(tmp_path, changes, reason):
    write_calvin(tmp_path, SPANS)
    rewrite(tmp_path, **changes)
    source = open_source("calvin", tmp_path, suite="calvin_d")
    first, second = source.members()
    with pytest.raises(InputError, match=f"^{reason}"):
        list(source.read(first))
    assert len(list(source.read(second))) == 1


def test_a_span_without_words_is_skipped(tmp_path):
    write_calvin(tmp_path, [("open_drawer", " ", 3), SPANS[0]])
    skipped, episode = episodes_of(tmp_path)
    assert skipped == Skipped("calvin_abc-000000", "no instruction: the span is described by nothing")
    assert episode.info.attempt == 1


def test_a_span_of_other_files_is_another_member(tmp_path):
    write_calvin(tmp_path / "a", SPANS, seed=0)
    write_calvin(tmp_path / "b", SPANS, seed=1)
    first, second = (open_source("calvin", tmp_path / folder, suite="calvin_d").members() for folder in "ab")
    assert [member.name for member in first] == [member.name for member in second]
    assert all(ours.detail != theirs.detail for ours, theirs in zip(first, second, strict=True))


def test_what_unpacks_to_far_more_is_not_unpacked(tmp_path):
    write_calvin(tmp_path, SPANS)
    path = tmp_path / "training" / "episode_0000002.npz"
    with np.load(path) as file:
        content = dict(file)
    np.savez_compressed(path, **{**content, "rgb_static": np.zeros((5000, 5000, 3), np.uint8)})
    with pytest.raises(InputError, match=r"^wrong shape: rgb_static of episode_0000002.npz has 75 MB$"):
        episodes_of(tmp_path)


def test_a_missing_step_is_named(tmp_path):
    write_calvin(tmp_path, SPANS)
    (tmp_path / "training" / "episode_0000003.npz").unlink()
    with pytest.raises(InputError, match=r"^missing: episode_0000003.npz$"):
        episodes_of(tmp_path)


def test_no_damage_goes_unseen(tmp_path):
    write_calvin(tmp_path, [("open_drawer", "x", 1)])
    source = open_source("calvin", tmp_path, suite="calvin_d", image_size=32)
    (member,) = source.members()
    (intact,) = source.read(member)
    path = tmp_path / "training" / "episode_0000000.npz"
    whole, random = path.read_bytes(), np.random.default_rng(0)
    told = []
    for trial in range(150):
        damaged = bytearray(whole)
        # Half of them in what describes the content, where a reader is led astray.
        place = int(random.integers(len(whole) if trial % 2 else 700)) if trial else 0
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged if trial % 10 else whole[:place])
        try:
            (found,) = source.read(member)
        except InputError as error:
            told.append(str(error).partition(":")[0])
        else:
            assert found.images == intact.images
            np.testing.assert_array_equal(found.actions, intact.actions)
            np.testing.assert_array_equal(found.proprio, intact.proprio)
    assert len(told) > 50
    assert set(told) <= {"not readable", "missing", "wrong shape", "wrong dtype"}


def test_wrong_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no lang_annotations"):
        open_source("calvin", tmp_path, suite="calvin_d")
    write_calvin(tmp_path, SPANS)
    with pytest.raises(InputError, match="needs --suite, one of calvin_a.*; got none"):
        open_source("calvin", tmp_path)
    with pytest.raises(InputError, match="got 'calvin_e'"):
        open_source("calvin", tmp_path, suite="calvin_e")
    with pytest.raises(InputError, match="image size 3 is too small"):
        open_source("calvin", tmp_path, suite="calvin_d", image_size=3)
    annotations = tmp_path / "training" / "lang_annotations" / "auto_lang_ann.npy"
    whole = annotations.read_bytes()
    for content, message in (
        ({"language": {"ann": ["a"], "task": []}, "info": {"indx": [(0, 1)]}}, "holds no annotations of CALVIN's"),
        ({"language": {"ann": [], "task": []}, "info": {"indx": []}}, "describes no span"),
        ([1, 2], "holds no annotations"),
        (
            {"language": {"ann": [["a"]], "task": ["b"]}, "info": {"indx": [(0, 1)]}},
            "a list where there should be text",
        ),
    ):
        np.save(annotations, np.array(content, object))
        with pytest.raises(InputError, match=message):
            open_source("calvin", tmp_path, suite="calvin_d")
    annotations.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="is no readable .npy file"):
        open_source("calvin", tmp_path, suite="calvin_d")
