"""LeRobot v3.0 data sets: read as episodes of ours whoever wrote them; what is broken costs its own episode only."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from avavla_ray.demonstrations.export_lerobot import export_lerobot
from avavla_ray.demonstrations.importers.lerobot import LeRobot
from avavla_ray.demonstrations.importers.source import Member, Skipped, open_source
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.schema import Episode, decode_image, encode_image
from avavla_ray.errors import InputError
from tests.support.demonstration_data import make_dataset
from tests.support.lerobot_folders import (
    DATA,
    EPISODES,
    FILM,
    LENGTHS,
    SCENE,
    WRIST,
    edit_json,
    edit_table,
    export_numbered,
    with_value,
)
from tests.support.numbered_pictures import number_of


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return export_numbered(tmp_path_factory.mktemp("published"))


@pytest.fixture
def copy(published, tmp_path) -> Path:
    return Path(shutil.copytree(published / "lerobot", tmp_path / "lerobot"))


def read_all(source: LeRobot) -> list[Episode | Skipped | str]:
    """Of each member its episode, why it was skipped, or what is wrong with it."""
    found: list[Episode | Skipped | str] = []
    for member in source.members():
        try:
            found += source.read(member)
        except InputError as error:
            found.append(str(error))
    return found


def numbers(episode: Episode) -> list[list[int]]:
    return [[number_of(decode_image(picture)) for picture in frame] for frame in episode.images]


def expected_numbers(index: int) -> list[list[int]]:
    first = sum(LENGTHS[:index])
    return [[number, 511 - number] for number in range(first, first + LENGTHS[index])]


def check_left_out(folder: Path, broken: int, reason: str) -> None:
    """Check that an episode cannot be read, and that the one before still can."""
    source = LeRobot(folder)
    members = source.members()
    with pytest.raises(InputError, match=f"^{re.escape(reason)}"):
        list(source.read(members[broken]))
    (before,) = source.read(members[broken - 1])
    assert numbers(before) == expected_numbers(broken - 1)


def test_members_are_an_index_and_travel(published):
    source = open_source("lerobot", published / "lerobot", suite="own")
    members = source.members()
    assert [member.name for member in members] == [f"own-{index:06d}" for index in range(4)]
    assert members == [Member(*content) for content in json.loads(json.dumps(members))]
    assert members == LeRobot(published / "lerobot", suite="own").members()
    (episode,) = pickle.loads(pickle.dumps(source)).read(pickle.loads(pickle.dumps(members[2])))
    assert numbers(episode) == expected_numbers(2)
    assert (episode.info.task, episode.info.attempt, episode.info.seed) == (0, 2, -1)


def store_stills(folder: Path, reader: EpisodeReader) -> None:
    """Lay the data set out as LeRobot's older writers do: pictures in Parquet, lists of any length, doubles, and one
    row group that tells nothing of what it holds."""
    shown = [frame for index, steps in enumerate(LENGTHS) for frame in reader.images(index, range(steps))]

    def change(table: pa.Table) -> pa.Table:
        for camera, name in enumerate((SCENE, WRIST)):
            column = [{"bytes": encode_image(frame[camera]), "path": f"{step}.png"} for step, frame in enumerate(shown)]
            table = table.append_column(name, pa.array(column))
        index = table.column_names.index("observation.state")
        values = table["observation.state"].to_pylist()
        return table.set_column(index, "observation.state", pa.array(values, pa.list_(pa.float64())))

    edit_table(folder / DATA, change, write_statistics=False)
    edit_json(
        folder / "meta/info.json", lambda info: [info["features"][c].update(dtype="image") for c in (SCENE, WRIST)]
    )
    edit_table(
        folder / EPISODES, lambda table: table.select([c for c in table.column_names if not c.startswith("videos")])
    )
    shutil.rmtree(folder / "videos")


def test_pictures_in_parquet_are_read_as_those_in_videos(copy, published):
    reader = EpisodeReader(read_metadata(published / "ours"))
    store_stills(copy, reader)
    for index, episode in enumerate(read_all(LeRobot(copy))):
        assert isinstance(episode, Episode), episode
        assert numbers(episode) == expected_numbers(index)
        proprio, actions = reader.numbers(index)
        np.testing.assert_array_equal(episode.proprio, proprio)
        np.testing.assert_array_equal(episode.actions, actions)
        np.testing.assert_array_equal(decode_image(episode.images[3][0]), reader.images(index, [3])[0, 0])


def sized(png: bytes, width: int, height: int) -> bytes:
    """A PNG that says it is so large."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def as_gif(png: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(decode_image(png)).save(stream, "GIF")
    return stream.getvalue()


def test_pictures_in_parquet_that_are_none(copy, published):
    store_stills(copy, EpisodeReader(read_metadata(published / "ours")))
    picture = pq.read_table(copy / DATA)[WRIST][LENGTHS[0] + 2].as_py()
    for broken, reason in (
        ({"bytes": None, "path": "elsewhere.png"}, "missing: observation.images.wrist of step 2 is not in the Parquet"),
        ({"bytes": picture["bytes"][:60], "path": ""}, "not readable: observation.images.wrist of step 2: "),
        ({"bytes": b"no picture", "path": ""}, "not readable: observation.images.wrist of step 2 is no PNG or JPEG"),
        (
            {"bytes": sized(picture["bytes"], 5000, 4000), "path": ""},
            "not readable: observation.images.wrist of step 2: 4",
        ),
        ({"bytes": sized(picture["bytes"], 60000, 60000), "path": ""}, "not readable: observation.images.wrist of ste"),
        ({"bytes": as_gif(picture["bytes"]), "path": ""}, "not readable: observation.images.wrist of step 2 is no PNG"),
    ):
        edit_table(copy / DATA, with_value(WRIST, LENGTHS[0] + 2, broken))
        check_left_out(copy, 1, reason)


def test_only_the_episodes_row_group_is_read(copy):
    metadata = pq.ParquetFile(copy / DATA).metadata
    column = metadata.row_group(1).column(0)
    content = bytearray((copy / DATA).read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (copy / DATA).write_bytes(content)
    check_left_out(copy, 1, "not readable: file-000.parquet: ")


def test_only_the_episodes_frames_are_decoded(copy):
    content = bytearray((copy / FILM).read_bytes())
    # The encoder signs the first frame of each episode.
    second, third = [found.start() for found in re.finditer(b"x264 - core", content)][1:3]
    middle = (second + 800 + third) // 2
    content[middle : middle + 100] = bytes(100)
    (copy / FILM).write_bytes(content)
    check_left_out(copy, 1, "not readable: file-000.mp4 at ")
    after = read_all(LeRobot(copy))[2]
    assert isinstance(after, Episode)
    assert numbers(after) == expected_numbers(2)


def test_files_that_are_cut_short_or_gone(copy):
    content = (copy / FILM).read_bytes()
    (copy / FILM).write_bytes(content[: len(content) * 3 // 4])
    found = read_all(LeRobot(copy))
    assert isinstance(found[-1], str)
    assert found[-1].startswith(("not readable: file-000.mp4", "wrong number of frames: "))
    (copy / FILM).unlink()
    assert {str(reason).partition(":")[0] for reason in read_all(LeRobot(copy))} == {"missing"}
    (copy / DATA).unlink()
    assert all(str(reason).startswith("missing: ") for reason in read_all(LeRobot(copy)))


def test_a_video_that_ends_before_its_episode(copy):
    edit_table(copy / EPISODES, with_value(f"videos/{SCENE}/from_timestamp", 3, 40 / 20))
    check_left_out(copy, 3, f"not consistent: timestamps from 0.000 to 0.950 s, {FILM} has 0 to 0.700 s of this")
    edit_table(copy / EPISODES, with_value(f"videos/{SCENE}/to_timestamp", 3, 60 / 20))
    check_left_out(copy, 3, "wrong number of frames: file-000.mp4 has none at 2.700 s")


def with_vectors(name: str, change: Callable[[list[float], int], list[float]]) -> Callable[[pa.Table], pa.Table]:
    """Change the second episode's vectors, by their step."""

    def changed(table: pa.Table) -> pa.Table:
        values = [
            change(vector, step) if episode == 1 else vector
            for vector, episode, step in zip(
                *(table[column].to_pylist() for column in (name, "episode_index", "frame_index")), strict=True
            )
        ]
        return table.set_column(table.column_names.index(name), name, pa.array(values, pa.list_(pa.float32())))

    return changed


def test_rows_that_make_no_sense(copy):
    original = (copy / DATA).read_bytes()
    action = pq.read_table(copy / DATA)["action"].to_pylist()
    cases: list[tuple[Callable[[pa.Table], pa.Table], str]] = [
        (with_value("action", 11, [*action[11][:2], float("nan"), *action[11][3:]]), "not finite: action 2 of step 2"),
        (
            with_value("action", 11, [*action[11][:6], 1.5]),
            "out of range: gripper commands from -1 to 1.5, expected -1",
        ),
        (with_value("frame_index", 11, 7), "not consistent: frame_index does not count from 0 to 13"),
        (
            with_value("timestamp", 11, 0.3),
            "not consistent: timestamps of data/chunk-000/file-000.parquet do not ascend",
        ),
        (with_value("timestamp", 11, None), "not finite: timestamp 0 of step 2"),
        (with_vectors("action", lambda values, _: [*values, 0.5]), "wrong shape: action is (14, 8), expected 7"),
        (with_vectors("action", lambda values, _: []), "wrong shape: action is (14, 0), expected 7 numbers a step"),
        (with_vectors("observation.state", lambda values, _: values[:6]), "wrong shape: observation.state is (14, 6)"),
        (with_vectors("action", lambda values, step: values[: 7 - step]), "wrong shape: action is no table of numbers"),
        (
            lambda table: pa.concat_tables([table[:11], table[12:]]),
            f"wrong number of frames: {DATA} holds 13, expected 14",
        ),
    ]
    for change, reason in cases:
        (copy / DATA).write_bytes(original)
        edit_table(copy / DATA, change)
        check_left_out(copy, 1, reason)


def test_a_file_whose_columns_have_no_names(copy):
    content = (copy / DATA).read_bytes()
    (copy / DATA).write_bytes(content.replace(b"task_index", b"\xd6ask_index"))
    assert {str(reason).partition(":")[0] for reason in read_all(LeRobot(copy))} == {"not readable"}


def test_rows_that_are_counted_in_letters(copy):
    original = (copy / DATA).read_bytes()
    source = LeRobot(copy)
    member = source.members()[0]
    for name in ("episode_index", "frame_index", "task_index"):
        (copy / DATA).write_bytes(original)
        edit_table(
            copy / DATA,
            lambda table, name=name: table.set_column(
                table.column_names.index(name), name, table[name].cast(pa.string())
            ),
        )
        with pytest.raises(InputError, match=f"^wrong dtype: {name} of {DATA.name} is string, expected whole numbers"):
            list(source.read(member))


def test_cameras_are_ordered_chosen_and_scaled(copy):
    info = copy / "meta/info.json"
    edit_json(info, lambda info: info.update(features=dict(reversed(info["features"].items()))))
    assert LeRobot(copy).manifest()["cameras"] == [SCENE, WRIST]
    assert LeRobot(copy, cameras=(WRIST,)).manifest()["cameras"] == [WRIST]
    source = LeRobot(copy, cameras=(WRIST, SCENE), image_size=20)
    episode = next(iter(source.read(source.members()[1])))
    assert numbers(episode) == [row[::-1] for row in expected_numbers(1)]
    assert decode_image(episode.images[0][0]).shape == (20, 20, 3)


def test_pictures_are_turned_as_our_simulators_show_them(tmp_path):
    export_lerobot(make_dataset(tmp_path / "ours", episodes=1, steps=3), tmp_path / "lerobot")

    def scene(turn: str) -> np.ndarray:
        source = LeRobot(tmp_path / "lerobot", turn=turn)  # type: ignore[arg-type]
        (episode,) = source.read(source.members()[0])
        return np.stack([decode_image(frame[0]) for frame in episode.images])

    stored = scene("upright")
    for turn, ours in (
        ("upside_down", stored[:, ::-1]),
        ("mirrored", stored[:, :, ::-1]),
        ("half_turn", stored[:, ::-1, ::-1]),
    ):
        assert not np.array_equal(ours, stored)
        np.testing.assert_array_equal(scene(turn), ours)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"codebase_version": "v2.1"}, {}, "format v2.1, expected v3.0: convert it with LeRobot's convert_dataset_v21"),
        ({"codebase_version": "v4.0"}, {}, "codebase_version is v4.0, expected v3.0"),
        ({"fps": None}, {}, "fps is None"),
        ({"total_episodes": 5}, {}, "lists 4 episodes, meta/info.json counts 5"),
        ({"data_path": "data/{episode:03d}.parquet"}, {}, "is no template of chunk_index and file_index"),
        ({}, {"state": "observation.stat"}, "unknown feature 'observation.stat': did you mean 'observation.state'"),
        ({}, {"cameras": ("observation.images.wirst",)}, "did you mean 'observation.images.wrist'"),
        ({}, {"gripper": "closed"}, "unknown gripper"),
        ({}, {"suite": "a/b"}, "'a/b' cannot name files"),
        ({"data_path": "/data/chunk-{chunk_index:03d}"}, {}, "leads out of the data set"),
        ({"data_path": "data/../../other/file-{file_index:03d}.parquet"}, {}, "leads out of the data set"),
        ({"video_path": "../{video_key}/file-{file_index:03d}.mp4"}, {}, "leads out of the data set"),
    ],
)
def test_what_is_refused_at_once(copy, change, options, message):
    edit_json(copy / "meta/info.json", lambda info: info.update(change))
    with pytest.raises(InputError, match=message):
        LeRobot(copy, **options).members()


def test_pictures_of_no_known_size(copy):
    edit_json(copy / "meta/info.json", lambda info: info["features"][WRIST].update(info=7))
    assert LeRobot(copy).manifest()["cameras"] == [SCENE, WRIST]
    for shape in (None, [32, 32], [32, [32], 3]):
        edit_json(copy / "meta/info.json", lambda info, shape=shape: info["features"][WRIST].update(shape=shape))
        with pytest.raises(InputError, match="meta/info.json: a camera's shape is not understood: shape "):
            LeRobot(copy)


def test_vectors_of_no_known_width(copy):
    for shape in (None, [], [0], 7, ["x"]):
        edit_json(copy / "meta/info.json", lambda info, shape=shape: info["features"]["action"].update(shape=shape))
        with pytest.raises(InputError, match="meta/info.json: action: shape .* instead of how many numbers a step"):
            LeRobot(copy)


def test_pictures_of_different_sizes_need_a_common_one(copy):
    edit_json(copy / "meta/info.json", lambda info: info["features"][WRIST].update(shape=[3, 24, 32]))
    with pytest.raises(InputError, match=r"wrist 24 x 32\): give --image-size"):
        LeRobot(copy)
    source = LeRobot(copy, image_size=32)
    (episode,) = source.read(source.members()[0])
    assert numbers(episode) == expected_numbers(0)
    edit_json(
        copy / "meta/info.json", lambda info: [info["features"][c].update(shape=[48, 48, 3]) for c in (SCENE, WRIST)]
    )
    source = LeRobot(copy)
    with pytest.raises(InputError, match="^wrong shape: a picture of 32 x 32, expected 48 x 48"):
        list(source.read(source.members()[0]))


def test_a_folder_that_is_no_lerobot_data_set(tmp_path, copy):
    with pytest.raises(InputError, match="meta/info.json is missing: give the folder of a LeRobot data set"):
        LeRobot(tmp_path)
    (copy / "meta/tasks.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="tasks.parquet is not readable"):
        LeRobot(copy)
    (copy / "meta/info.json").write_text("{")
    with pytest.raises(InputError, match=r"info.json is no JSON"):
        LeRobot(copy)
