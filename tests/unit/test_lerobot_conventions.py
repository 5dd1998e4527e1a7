"""Others' grippers, rotations and task numbers become those of our simulators."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avavla_ray.demonstrations.export_lerobot import export_lerobot
from avavla_ray.demonstrations.importers.lerobot import LeRobot
from avavla_ray.demonstrations.importers.lerobot_conventions import task_numbers, with_our_gripper, with_our_rotation
from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS
from avavla_ray.simulators.libero.adapter import axis_angle
from avavla_ray.simulators.registry import suite_spec
from tests.support.demonstration_data import make_dataset
from tests.support.lerobot_folders import DATA, edit_table, export_numbered, with_column


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return export_numbered(tmp_path_factory.mktemp("published"))


@pytest.fixture
def copy(published, tmp_path) -> Path:
    return Path(shutil.copytree(published / "lerobot", tmp_path / "lerobot"))


def with_grippers(change: Callable[[float], float]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        actions = [[*action[:6], change(action[6])] for action in table["action"].to_pylist()]
        return with_column(table, "action", actions)

    return changed


@pytest.mark.parametrize(
    ("gripper", "stored"),
    [("open_fraction", lambda command: (1 - command) / 2), ("closed_fraction", lambda command: (1 + command) / 2)],
)
def test_grippers_of_another_convention(copy, gripper, stored):
    ours = pq.read_table(copy / DATA)["action"].to_pylist()
    edit_table(copy / DATA, with_grippers(stored))
    (copy / "meta/stats.json").unlink()
    with pytest.raises(InputError, match=r"goes from 0 to 1, expected -1 .* open_fraction if 1 is open .* closed_frac"):
        LeRobot(copy).members()
    source = LeRobot(copy, gripper=gripper)
    (episode,) = source.read(source.members()[0])
    np.testing.assert_array_equal(episode.actions, ours[: len(episode.actions)])


def test_the_data_tell_the_gripper_where_statistics_are_wrong_and_rows_unreadable(copy):
    (copy / "meta/stats.json").write_text('{"action": {"min": [null], "max": 1}}')
    assert len(LeRobot(copy).members()) == 4
    edit_table(copy / DATA, with_grippers(lambda command: (1 - command) / 2), row_group_size=9)
    content = bytearray((copy / DATA).read_bytes())
    group = pq.ParquetFile(copy / DATA).metadata.row_group(0)
    columns = (group.column(index) for index in range(group.num_columns))
    action = next(column for column in columns if column.path_in_schema.startswith("action"))
    start = action.dictionary_page_offset or action.data_page_offset
    content[start : start + action.total_compressed_size] = b"\xff" * action.total_compressed_size
    (copy / DATA).write_bytes(content)
    with pytest.raises(InputError, match="goes from 0 to 1, expected -1 to [+]1"):
        LeRobot(copy).members()
    (copy / DATA).write_bytes(b"PAR1 no")
    assert len(LeRobot(copy).members()) == 4


def test_a_row_group_without_rows(copy):
    table = pq.read_table(copy / DATA)
    with pq.ParquetWriter(copy / DATA, table.schema) as writer:
        writer.write_table(table[:0])
        writer.write_table(table)
    assert pq.ParquetFile(copy / DATA).metadata.row_group(0).num_rows == 0
    source = LeRobot(copy)
    (episode,) = source.read(source.members()[0])
    assert episode.info.steps == 9


def test_calvins_gripper_opens_at_one():
    actions = np.array([[0.5, 0.0], [0.5, 0.25], [0.5, 1.0]], np.float32)
    for suite, opened in (("libero_10", -1), ("calvin_d", 1), ("calvin_abc", 1), ("own", -1)):
        commands = with_our_gripper(actions, "open_fraction", suite)
        np.testing.assert_allclose(commands, [[0.5, -opened], [0.5, -0.5 * opened], [0.5, opened]], err_msg=suite)
        np.testing.assert_array_equal(with_our_gripper(actions, "signed", suite), actions)


def test_the_export_names_the_grippers_sign(tmp_path):
    ours = make_dataset(tmp_path / "ours", episodes=1, steps=3)
    for suite, name in (("libero_object", "gripper (-1 open, +1 close)"), ("calvin_d", "gripper (+1 open, -1 close)")):
        folder = Path(shutil.copytree(ours, tmp_path / suite))
        manifest = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps({**manifest, "suite": suite}))
        export_lerobot(folder, tmp_path / f"{suite}_lerobot")
        info = json.loads((tmp_path / f"{suite}_lerobot/meta/info.json").read_text())
        assert info["features"]["action"]["names"] == [*(f"action_{index}" for index in range(6)), name]


def test_rotations_of_libero_are_those_of_our_simulator():
    random = np.random.default_rng(0)
    quaternions = random.normal(size=(200, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    # As robosuite turns a quaternion into a vector, whatever its sign.
    halves = np.arccos(quaternions[:, 3:])
    vectors = quaternions[:, :3] / np.sin(halves) * 2 * halves
    proprio = np.concatenate([random.normal(size=(200, 3)), vectors, random.normal(size=(200, 2))], axis=1)
    proprio = proprio.astype(np.float32)
    expected = np.array([axis_angle(quaternion) for quaternion in quaternions])
    found = with_our_rotation(proprio, "libero_goal")
    np.testing.assert_allclose(found[:, 3:6], expected, atol=1e-5)
    unchanged = quaternions[:, 0] >= 0
    assert 50 < unchanged.sum() < 150
    np.testing.assert_array_equal(found[unchanged], proprio[unchanged])
    np.testing.assert_array_equal(found[:, [0, 1, 2, 6, 7]], proprio[:, [0, 1, 2, 6, 7]])
    np.testing.assert_array_equal(with_our_rotation(proprio, "own"), proprio)


def test_tasks_of_our_suites_have_their_numbers(copy):
    known = tuple(INSTRUCTIONS.values())[5]
    episodes = "meta/episodes/chunk-000/file-000.parquet"
    for text, suite, number in ((known, "calvin_d", 5), ("put it away", "calvin_d", -1), (known, "own", 0)):
        edit_table(copy / "meta/tasks.parquet", lambda table, text=text: with_column(table, "task", [text]))
        edit_table(copy / episodes, lambda table, text=text: with_column(table, "tasks", [[text]] * 4))
        source = LeRobot(copy, suite=suite)
        (episode,) = source.read(source.members()[0])
        assert (episode.info.task, episode.info.instruction) == (number, text)


@pytest.mark.libero
def test_data_of_a_libero_suite(copy):
    def change(table: pa.Table) -> pa.Table:
        return with_column(table, "observation.state", [[0, 0, 0, -3, 1, 0, 0, 0]] * len(table))

    edit_table(copy / DATA, change)
    for suite, sign, task in (("own", -1, 0), ("libero_object", 1, 0), ("libero_goal", 1, -1)):
        source = LeRobot(copy, suite=suite)
        (episode,) = source.read(source.members()[0])
        assert (np.sign(episode.proprio[0, 3]), episode.info.task) == (sign, task), suite


@pytest.mark.libero
def test_an_instruction_of_several_tasks_tells_no_number():
    instructions = suite_spec("libero_90").instructions
    numbers = task_numbers("libero_90")
    assert numbers is not None
    assert {instructions[index] for index in numbers.values()} == numbers.keys()
    shared = set(instructions) - numbers.keys()
    assert shared
    assert all(instructions.count(text) > 1 for text in shared)
