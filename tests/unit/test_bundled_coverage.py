"""Everything that the 130 task files name is in the bundled set: classes, rooms, regions that goals ask about."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import PurePosixPath

import pytest

from avavla_ray.simulators.libero.bundled.build import BUNDLED_SUITES, generate
from avavla_ray.simulators.libero.suites import MAX_STEPS
from tests.support.task_files import GROUNDS, SCENES, TaskFile, all_task_files


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return generate()


@pytest.fixture(scope="module")
def task_files() -> list[TaskFile]:
    return all_task_files()


def test_the_set_covers_every_suite(task_files: list[TaskFile]) -> None:
    assert set(BUNDLED_SUITES) == set(MAX_STEPS)
    assert len(task_files) == 130


def test_every_class_and_every_room_has_a_file(files: dict[str, bytes], task_files: list[TaskFile]) -> None:
    things = {PurePosixPath(path).stem for path in files if "_objects/" in path}
    rooms = {path for path in files if path.startswith("scenes/")}
    wanted = {kind for task in task_files for kind in task.kinds.values()} - GROUNDS
    assert wanted == things
    assert rooms == {f"scenes/libero_{SCENES[task.ground]}_base_style.xml" for task in task_files}


def test_goals_ask_about_things_and_regions_that_exist(files: dict[str, bytes], task_files: list[TaskFile]) -> None:
    regions = {
        PurePosixPath(path).stem: {site.get("name") for site in ET.fromstring(contents).iter("site")}
        for path, contents in files.items()
        if "_objects/" in path
    }
    asked = 0
    for task in task_files:
        for _, *arguments in task.goals:
            for argument in arguments:
                if argument in task.kinds or argument in task.ground_regions:
                    continue
                owner = max((name for name in task.kinds if argument.startswith(f"{name}_")), key=len)
                assert argument.removeprefix(f"{owner}_") in regions[task.kinds[owner]], (task.task.name, argument)
                asked += 1
    assert asked > 60
