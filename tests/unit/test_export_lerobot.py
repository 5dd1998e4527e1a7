"""Our demonstrations as LeRobot v3.0: laid out as LeRobot reads them, whole or not there, and the same read back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from avavla_ray.demonstrations.export_lerobot import export_lerobot
from avavla_ray.demonstrations.importers.lerobot import LeRobot
from avavla_ray.demonstrations.lerobot_layout import FileLimits
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.schema import decode_image
from avavla_ray.errors import InputError
from avavla_ray.simulators.registry import SUITES
from tests.support.demonstration_data import INSTRUCTION, make_dataset
from tests.support.numbered_pictures import make_numbered_dataset, number_of

SCENE, WRIST = "observation.images.scene", "observation.images.wrist"


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures, dB."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def test_what_was_exported_reads_back(tmp_path):
    folder, out = make_dataset(tmp_path / "demos", size=64), tmp_path / "lerobot"
    counted: list[None] = []
    export = export_lerobot(folder, out, tick=lambda: counted.append(None))
    metadata = read_metadata(folder)
    assert export == (6, metadata.steps, 20, (SCENE, WRIST))
    assert len(counted) == 6
    reader, source = EpisodeReader(metadata), LeRobot(out, suite="again")
    members = source.members()
    assert [member.name for member in members] == [f"again-{index:06d}" for index in range(6)]
    for index, member in enumerate(members):
        (episode,) = source.read(member)
        proprio, actions = reader.numbers(index)
        np.testing.assert_array_equal(episode.proprio, proprio)
        np.testing.assert_array_equal(episode.actions, actions)
        assert (episode.info.instruction, episode.info.steps) == (INSTRUCTION, len(actions))
        shown = reader.images(index, range(len(actions)))
        for step, frame in enumerate(episode.images):
            for camera, picture in enumerate(frame):
                # Halving the colours' resolution alone leaves 40 dB of a square with sharp edges.
                assert psnr(decode_image(picture), shown[step, camera]) > 38
    assert source.manifest()["fps"] == 20
    assert source.manifest()["image_size"] == 64


def test_frames_stay_with_their_steps_over_many_files(tmp_path):
    out = tmp_path / "lerobot"
    lengths = (9, 14, 11, 20)
    export_lerobot(
        make_numbered_dataset(tmp_path / "demos", lengths), out,
        limits=FileLimits(data_megabytes=0.0015, video_megabytes=0.003, files_in_chunk=2),
    )  # fmt: skip
    for kind in ("data", f"videos/{SCENE}", f"videos/{WRIST}"):
        files = sorted(path.relative_to(out / kind).with_suffix("").as_posix() for path in (out / kind).rglob("*-*.*"))
        assert len(files) > 2, (kind, files)
        assert files[:3] == ["chunk-000/file-000", "chunk-000/file-001", "chunk-001/file-000"]
    source = LeRobot(out)
    seen = [episode for member in source.members() for episode in source.read(member)]
    assert [episode.info.steps for episode in seen] == list(lengths)
    frames = [[number_of(decode_image(picture)) for picture in frame] for episode in seen for frame in episode.images]
    assert frames == [[number, 511 - number] for number in range(sum(lengths))]


def test_the_files_are_laid_out_as_lerobot_reads_them(tmp_path):
    out = tmp_path / "lerobot"
    folder = make_numbered_dataset(tmp_path / "demos")
    export_lerobot(folder, out, fps=10)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/avavla_ray.json",
        "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet",
        f"videos/{SCENE}/chunk-000/file-000.mp4", f"videos/{WRIST}/chunk-000/file-000.mp4",
    }  # fmt: skip
    info = json.loads((out / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 10, {"train": "0:4"})
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 54, 1)
    assert info["features"][SCENE]["shape"] == [32, 32, 3]
    data = pq.ParquetFile(out / info["data_path"].format(chunk_index=0, file_index=0))
    assert data.num_row_groups == 4
    columns = data.read()
    assert set(info["features"]) - {SCENE, WRIST} == set(columns.column_names)
    for name in columns.column_names:
        kind = columns.schema.field(name).type
        assert str(getattr(kind, "value_type", kind)).replace("float", "float32") == info["features"][name]["dtype"]
    assert columns["index"].to_pylist() == list(range(54))
    assert columns["timestamp"].to_pylist()[9:12] == pytest.approx([0.0, 0.1, 0.2])
    tasks = pd.read_parquet(out / "meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert tasks.loc[INSTRUCTION].task_index == 0
    episodes = pd.read_parquet(out / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["dataset_from_index"].tolist() == [0, 9, 23, 34]
    assert episodes["dataset_to_index"].tolist() == [9, 23, 34, 54]
    assert episodes[f"videos/{WRIST}/from_timestamp"].tolist() == pytest.approx([0, 0.9, 2.3, 3.4])
    assert episodes[f"videos/{WRIST}/to_timestamp"].tolist() == pytest.approx([0.9, 2.3, 3.4, 5.4])


def test_statistics_are_those_of_the_data(tmp_path):
    folder, out = make_dataset(tmp_path / "demos", episodes=3), tmp_path / "lerobot"
    export_lerobot(folder, out)
    statistics = json.loads((out / "meta/stats.json").read_text())
    metadata = read_metadata(folder)
    reader = EpisodeReader(metadata)
    proprio = np.concatenate([reader.numbers(index)[0] for index in range(3)]).astype(float)
    pictures = np.concatenate([reader.images(index, range(e.steps)) for index, e in enumerate(metadata.episodes)]) / 255
    wrist = pictures[:, 1]
    for name, values, shape in (("observation.state", proprio, (8,)), (WRIST, wrist.reshape(-1, 3), (3, 1, 1))):
        found = statistics[name]
        wanted = {
            "min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0),
            "q01": np.quantile(values, 0.01, axis=0), "q99": np.quantile(values, 0.99, axis=0),
        }  # fmt: skip
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value.reshape(shape), atol=1e-6, err_msg=f"{name} {key}")
        assert found["count"] == [metadata.steps]
    assert statistics["index"]["max"] == [metadata.steps - 1]
    rows = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert sum(row[f"stats/{WRIST}/count"][0] for row in rows) == metadata.steps
    assert max(row["stats/observation.state/max"][0] for row in rows) == statistics["observation.state"]["max"][0]


def test_imported_data_are_exported_at_the_rate_that_they_came_with(tmp_path):
    folder = make_dataset(tmp_path / "demos", episodes=1)
    manifest = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**manifest, "fps": 12}))
    assert export_lerobot(folder, tmp_path / "lerobot").fps == 12


class Interrupted(BaseException):
    """Not of those that anybody catches."""


def test_an_interrupted_export_leaves_nothing(tmp_path):
    folder = make_dataset(tmp_path / "demos", episodes=3)
    out = tmp_path / "exports" / "lerobot"

    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        export_lerobot(folder, out, tick=interrupt)
    assert list(out.parent.iterdir()) == []
    assert export_lerobot(folder, out).episodes == 3


def test_what_cannot_be_exported_is_refused(tmp_path):
    folder, out = make_dataset(tmp_path / "demos", episodes=1), tmp_path / "lerobot"
    with pytest.raises(InputError, match="0 frames a second: give a whole number"):
        export_lerobot(folder, out, fps=0)
    manifest = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**manifest, "suite": "own.module:Own"}))
    with pytest.raises(InputError, match="control rate of own.module:Own is not known: give --fps"):
        export_lerobot(folder, out)
    assert not out.exists()
    (folder / "dataset.json").write_text(json.dumps({**manifest, "suite": "own.module:Own", "fps": 12.5}))
    with pytest.raises(InputError, match="12.5 frames a second: give a whole number"):
        export_lerobot(folder, out)
    assert export_lerobot(folder, out, fps=15).fps == 15
    with pytest.raises(InputError, match="exists already"):
        export_lerobot(folder, out, fps=15)
    with pytest.raises(InputError, match="no demonstrations at"):
        export_lerobot(tmp_path / "absent", tmp_path / "other")
    odd = make_dataset(tmp_path / "odd", episodes=1, size=33)
    with pytest.raises(InputError, match="33 x 33 pixels: yuv420p video needs even sizes"):
        export_lerobot(odd, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_tabletop_is_exported_at_its_own_rate():
    from avavla_ray.simulators.tabletop.scene import SUBSTEPS, TIMESTEP

    assert SUITES["tabletop"].control_hz == pytest.approx(1 / (TIMESTEP * SUBSTEPS))


@pytest.mark.libero
def test_benchmarks_are_exported_at_their_own_rates():
    from avavla_ray.simulators.calvin.environment import CONTROL_HZ
    from avavla_ray.simulators.libero import installation

    installation.prepare()
    from avavla_ray.simulators.libero.environment import CONTROL_FREQUENCY

    assert SUITES["libero_10"].control_hz == CONTROL_FREQUENCY
    assert SUITES["calvin_d"].control_hz == CONTROL_HZ
