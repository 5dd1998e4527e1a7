"""The index of a LeRobot data set: an odd row costs its episode only; members change with what they depend on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from avavla_ray.demonstrations.importers.lerobot import LeRobot
from avavla_ray.demonstrations.importers.source import Skipped
from avavla_ray.demonstrations.schema import Episode
from avavla_ray.errors import InputError
from tests.support.demonstration_data import INSTRUCTION
from tests.support.lerobot_folders import DATA, EPISODES, SCENE, edit_table, export_numbered, with_column, with_value


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return export_numbered(tmp_path_factory.mktemp("published")) / "lerobot"


@pytest.fixture
def copy(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "lerobot"))


def write_tasks(folder: Path, tasks: dict[int, str]) -> None:
    table = pd.DataFrame({"task_index": list(tasks)}, index=pd.Index(list(tasks.values()), name="task"))
    table.to_parquet(folder / "meta/tasks.parquet")


def name_tasks(folder: Path, tasks: list[list[str]]) -> None:
    """In the table of episodes."""
    edit_table(folder / EPISODES, lambda table: with_column(table, "tasks", tasks))


def number_rows(folder: Path, numbers: list[int]) -> None:
    """Give each episode's rows a task."""

    def change(table: pa.Table) -> pa.Table:
        return with_column(table, "task_index", [numbers[episode] for episode in table["episode_index"].to_pylist()])

    edit_table(folder / DATA, change)


def read_one(folder: Path, number: int) -> Episode | Skipped | str:
    source = LeRobot(folder)
    try:
        (found,) = source.read(source.members()[number])
    except InputError as error:
        return str(error)
    return found


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("length", None), ("tasks", None), ("tasks", [None]), ("data/chunk_index", None), ("data/file_index", -1),
        (f"videos/{SCENE}/file_index", None), (f"videos/{SCENE}/from_timestamp", None),
        (f"videos/{SCENE}/from_timestamp", float("nan")), (f"videos/{SCENE}/to_timestamp", float("inf")),
    ],
)  # fmt: skip
def test_an_odd_row_costs_its_episode(copy, column, value):
    before = LeRobot(copy).members()
    edit_table(copy / EPISODES, with_value(column, 1, value))
    source = LeRobot(copy)
    members = source.members()
    assert [member.name for member in members] == [member.name for member in before]
    json.dumps(members)
    with pytest.raises(InputError, match=f"^not readable: {re.escape(column)} in the table of episodes is "):
        list(source.read(members[1]))
    for member in (members[0], members[2]):
        assert member.detail["data"] == str(DATA)
        assert member.detail["videos"] == before[0 if member is members[0] else 2].detail["videos"]


def test_an_episode_without_a_number(copy):
    edit_table(copy / EPISODES, with_value("episode_index", 1, None))
    with pytest.raises(InputError, match="lists an episode without a number: fetch the data set again"):
        LeRobot(copy).members()


def test_a_member_changes_with_its_instruction_and_no_other(copy):
    write_tasks(copy, {0: "stack", 1: "", 2: "sort"})
    name_tasks(copy, [["stack"], ["pour"], ["sort"], ["sort"]])
    number_rows(copy, [0, 1, 2, 2])
    assert read_one(copy, 1) == Skipped("lerobot-000001", "no instruction: meta/tasks.parquet has none of number 1")
    before = LeRobot(copy).members()
    write_tasks(copy, {0: "stack", 1: "pour", 2: "sort"})
    after = LeRobot(copy).members()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, True]
    found = read_one(copy, 1)
    assert isinstance(found, Episode)
    assert (found.info.task, found.info.instruction) == (1, "pour")
    write_tasks(copy, {0: "stack", 1: "sort", 2: "pour"})
    changed = LeRobot(copy).members()
    assert [old == new for old, new in zip(after, changed, strict=True)] == [True, False, False, False]
    name_tasks(copy, [["stack"], ["pour"], ["sort"], ["place"]])
    assert LeRobot(copy).members()[3] != changed[3]


def test_instructions_that_disagree_are_told(copy):
    name_tasks(copy, [[INSTRUCTION], ["something else"], [], [INSTRUCTION, "another"]])
    reason = f"not consistent: its frames are of '{INSTRUCTION}', the table of episodes says "
    assert read_one(copy, 1) == f"{reason}['something else']"
    assert read_one(copy, 2) == f"{reason}[]"
    assert isinstance(read_one(copy, 3), Episode)


def test_episodes_without_one_instruction_are_left_out(copy):
    def change(table: pa.Table) -> pa.Table:
        return with_column(table, "task_index", [*([0] * (len(table) - 1)), 7])

    edit_table(copy / DATA, change)
    write_tasks(copy, {0: INSTRUCTION, 7: "sort"})
    assert read_one(copy, 3) == Skipped("lerobot-000003", "several instructions: its frames belong to 2 tasks")
    for tasks in ({0: " "}, {2**40: INSTRUCTION}, {-1: INSTRUCTION}):
        write_tasks(copy, tasks)
        number_rows(copy, list(tasks) * 4)
        number = next(iter(tasks))
        reason = f"no instruction: meta/tasks.parquet has none of number {number}"
        assert read_one(copy, 0) == Skipped("lerobot-000000", reason)


def test_texts_that_are_none_are_refused(copy):
    edit_table(
        copy / "meta/tasks.parquet",
        lambda table: table.set_column(
            table.column_names.index("task"), "task", pa.array([b"\x81"]).view(pa.string())
        ),
    )  # fmt: skip
    with pytest.raises(InputError, match="tasks.parquet is not readable"):
        LeRobot(copy)


def test_a_number_of_two_tasks_is_refused(copy):
    table = pd.DataFrame({"task_index": [0, 0]}, index=pd.Index(["stack", "sort"], name="task"))
    table.to_parquet(copy / "meta/tasks.parquet")
    with pytest.raises(InputError, match="calls task 0 both 'stack' and 'sort'"):
        LeRobot(copy)
