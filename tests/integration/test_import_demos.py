"""The importing job: what it writes, what it says of what is missing, and that repeating it changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import ray

from avavla_ray.demonstrations.importers.source import open_source
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.schema import Episode, decode_image
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import Observation, SimulatorConfig
from avavla_ray.simulators.libero.adapter import LiberoSimulator
from jobs.import_demos import Settings, main
from tests.support.libero_scenes import drop_into_basket, psnr, random_actions
from tests.support.published_demos import LiberoDemo, libero_demo, write_calvin, write_libero

ROOT = Path(__file__).resolve().parents[2]
SOUP = 0


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def published(tmp_path) -> Path:
    """libero_object: task 0 with a broken demo in the middle, task 1 truncated, task 2 whole, and an unknown task."""
    broken = libero_demo(6, seed=1)
    broken.actions[2, 2] = np.nan
    folder = tmp_path / "published"
    write_libero(folder, 0, [libero_demo(6), broken, libero_demo(7, seed=2)])
    torn = write_libero(folder, 1, [libero_demo(6)])
    torn.write_bytes(torn.read_bytes()[:5000])
    path = write_libero(folder, 2, [libero_demo(6, seed=3)])
    shutil.copy(path, path.with_name("wash_the_dishes_demo.hdf5"))
    return path.parent


@pytest.mark.ray
def test_what_is_missing_is_told_and_repeating_changes_nothing(ray_cluster, published, tmp_path, capsys):
    settings = Settings(kind="libero-hdf5", source=published, output=tmp_path / "demos", num_runners=2)
    with pytest.raises(InputError, match="3 left out, the first: .*demo_1: not finite: actions"):
        main(replace(settings, strict=True))
    capsys.readouterr()
    main(settings)
    output = capsys.readouterr().out
    assert "3 demonstrations, 16 steps, 2 instructions; 3 steps dropped" in output
    assert "3 left out (1 not finite, 1 not readable, 1 unknown task)" in output
    assert "8 of 10 tasks of libero_object have no demonstration: 1, 3, 4, 5, 6, 7, 8, 9" in output
    for line in ("_demo.hdf5:data/demo_1: not finite: actions[2, 2] is nan", "no wash_the_dishes"):
        assert line in output
    metadata = read_metadata(settings.output)
    assert [(e.task, e.attempt, e.steps) for e in metadata.episodes] == [(0, 0, 5), (0, 2, 6), (2, 0, 5)]
    summary = {"members": 6, "episodes": 3, "left_out": 3, "kind": "libero-hdf5", "pictures": "as recorded"}
    assert summary.items() <= metadata.manifest["import"].items()
    assert metadata.manifest["fps"] == 20
    told = json.loads((settings.output / "import.json").read_text())["members"]
    assert [entry["broken"] is None for entry in told] == [True, False, True, False, True, True]
    assert len({entry["name"] for entry in told}) == 6

    main(replace(settings, output=tmp_path / "again", num_runners=1))
    assert contents(tmp_path / "again") == contents(settings.output)
    times = {path: path.stat().st_mtime_ns for path in (settings.output / "steps").iterdir()}

    for change, message in (
        ({"keep_noops": True}, "no_op_filter True -> False"),
        ({"resume": False}, "is not empty"),
        ({"output": published}, "is not empty and holds no import"),
    ):
        with pytest.raises(InputError, match=message):
            main(replace(settings, **change))

    # What somebody damaged or repaired is read again, and nothing else.
    kept, lost = sorted(times)[0], sorted(times)[1]
    lost.write_bytes(lost.read_bytes()[:100])
    write_libero(published.parent, 1, [libero_demo(6, seed=9)])
    main(settings)
    assert [(e.task, e.steps) for e in read_metadata(settings.output).episodes] == [(0, 5), (0, 6), (1, 5), (2, 5)]
    assert kept.stat().st_mtime_ns == times[kept]
    assert lost.read_bytes() == (tmp_path / "again" / "steps" / lost.name).read_bytes()

    next(published.glob("*alphabet_soup*")).unlink()
    capsys.readouterr()
    main(settings)
    output = capsys.readouterr().out
    assert "2 demonstrations, 10 steps" in output
    assert "3 left out (2 gone, 1 unknown task)" in output
    assert sorted(entry.name for entry in (settings.output / "steps").iterdir()) == [
        "libero_object-01-00000.parquet", "libero_object-02-00000.parquet",
    ]  # fmt: skip


@pytest.mark.ray
def test_nothing_but_trouble_is_an_error(ray_cluster, published, tmp_path):
    for path in published.iterdir():
        with h5py.File(path, "w") as file:
            file.create_group("data/demo_0/obs").create_dataset("agentview_rgb", data=np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="nothing of .* could be imported; the first: .*: missing: actions"):
        main(Settings(kind="libero-hdf5", source=published, output=tmp_path / "demos", num_runners=1))
    with pytest.raises(InputError, match="is an unfinished import: repeat jobs/import_demos.py"):
        read_metadata(tmp_path / "demos")


@pytest.mark.ray
def test_calvin_and_back_out(ray_cluster, tmp_path, capsys):
    write_calvin(tmp_path / "task_D_D", [("open_drawer", "pull", 4), ("close_drawer", "push", 3)])
    (tmp_path / "task_D_D" / "training" / "episode_0000005.npz").unlink()
    settings = Settings(
        kind="calvin", source=tmp_path / "task_D_D", output=tmp_path / "demos", suite="calvin_d", image_size=32,
        num_runners=1,
    )  # fmt: skip
    main(settings)
    assert "1 left out (1 missing)" in capsys.readouterr().out
    metadata = read_metadata(tmp_path / "demos")
    assert EpisodeReader(metadata).images(0, [0, 3]).shape == (2, 2, 32, 32, 3)
    assert metadata.statistics.name == "calvin_d"
    main(Settings(source=tmp_path / "demos", output=tmp_path / "lerobot", export=True))
    assert "1 demonstrations, 4 steps at 30 Hz" in capsys.readouterr().out
    main(replace(settings, kind="lerobot", source=tmp_path / "lerobot", output=tmp_path / "back", image_size=None))
    back = read_metadata(tmp_path / "back")
    for ours, theirs in zip(EpisodeReader(metadata).numbers(0), EpisodeReader(back).numbers(0), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.timeout(180)
def test_an_import_that_is_killed_goes_on_where_it_was(ray_cluster, tmp_path):
    folder = write_libero(tmp_path, 0, [libero_demo(40, size=128, seed=number) for number in range(8)]).parent
    job = [sys.executable, str(ROOT / "jobs/import_demos.py"), "--kind", "libero-hdf5", "--num-runners", "1"]
    killed = tmp_path / "killed"
    words = [*job, "--source", str(folder), "--output", str(killed)]
    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **address})
    journal = killed / "import.jsonl"
    while not journal.exists() or journal.read_text().count("\n") < 4:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(InputError, match="is an unfinished import"):
        read_metadata(killed)
    before = {path.name: path.stat().st_mtime_ns for path in (killed / "steps").glob("*.parquet")}
    assert 3 <= len(before) < 8
    # As if it had been killed while it wrote.
    with open(journal, "a") as stream:
        stream.write('{"name": "libero_object-00-0')
    (killed / "steps" / ".libero_object-00-00007.parquet.01234567.tmp").write_bytes(b"PAR1")
    settings = Settings(kind="libero-hdf5", source=folder, output=killed, num_runners=2)
    main(settings)
    settled = [name for name, changed in before.items() if (killed / "steps" / name).stat().st_mtime_ns == changed]
    assert len(settled) >= 3, "what the journal knew was not written again"
    main(replace(settings, output=tmp_path / "whole"))
    assert contents(killed) == contents(tmp_path / "whole")
    assert len(read_metadata(killed).episodes) == 8


ACTIONS = np.concatenate([0.4 * random_actions(10), np.tile([0.1, 0, 0, 0, 0, 0, 1.0], (40, 1))])
ACTIONS[[3, 7], :6], ACTIONS[:10, 6] = 0, -1


def played(simulator: LiberoSimulator, *, succeeds: bool, look: bool) -> tuple[LiberoDemo, list[Observation]]:
    """An episode as LIBERO stores it, and what was seen before each action.

    Args:
        succeeds: the soup falls into the basket. look: at each state itself, where the simulator's own observations are
            up to 4 ms older.
    """
    observation = simulator.reset(SOUP, seed=5)
    scene = simulator.env.env
    states, seen, after = [], [], []
    model_file = simulator.env.sim.model.get_xml()
    success = False
    for step, action in enumerate(ACTIONS if succeeds else ACTIONS[:15]):
        if succeeds and step == 12:
            drop_into_basket(simulator, "alphabet_soup_1")
        states.append(simulator.env.get_sim_state().copy())
        if look:
            scene.sim.forward()
            scene.watch(deciding=True)
            observation = simulator._observation(scene.sample_now())
        seen.append(observation)
        result = simulator.run_chunk(action[None].astype(np.float32))
        observation, success = result.observation, result.success
        after.append((scene.sample, scene.sample.pictures.copy()))
        if success:
            break
    assert success == succeeds
    scenes, wrists = np.moveaxis(np.array([pictures for _, pictures in after]), 1, 0)
    robot = np.array([[*sample.fingers, *sample.position, *sample.quaternion] for sample, _ in after])
    joints = np.array([*(state[1:8] for state in states[1:]), simulator.data.qpos[:7]])
    return LiberoDemo(ACTIONS[: len(states)], np.array(states), scenes, wrists, robot, joints, model_file), seen


@pytest.mark.libero
@pytest.mark.ray
@pytest.mark.timeout(180)
def test_regenerated_pictures_are_what_the_simulator_shows(ray_cluster, tmp_path, capsys):
    simulator = LiberoSimulator(SimulatorConfig(suite="libero_object", image_size=96))
    try:
        demo, exact = played(simulator, succeeds=True, look=True)
        untouched, shown = played(simulator, succeeds=True, look=False)
        failure, _ = played(simulator, succeeds=False, look=False)
    finally:
        simulator.close()
    as_recorded = open_source("libero-hdf5", write_libero(tmp_path / "as_recorded", SOUP, [untouched]), keep_noops=True)
    (episode,) = as_recorded.read(as_recorded.members()[0])
    assert isinstance(episode, Episode)
    for row, observation in enumerate(shown[1:]):
        np.testing.assert_array_equal([decode_image(picture) for picture in episode.images[row]], observation.images)
        np.testing.assert_array_equal(episode.proprio[row], observation.proprio)

    short = replace(demo, states=demo.states[:, :-1])
    folder = write_libero(tmp_path, SOUP, [demo, failure, short]).parent
    main(Settings(kind="libero-hdf5", source=folder, output=tmp_path / "demos", regenerate=96, num_runners=1))
    output = capsys.readouterr().out
    assert "demo_1: not successful" in output
    assert "demo_2: wrong shape: its states hold" in output
    metadata = read_metadata(tmp_path / "demos")
    (info,) = metadata.episodes
    assert metadata.manifest["import"]["assets"] == "bundled"
    kept = [step for step in range(len(demo.actions)) if step not in (3, 7)]
    assert (info.steps, info.dropped, info.attempt) == (len(kept), 2, 0)
    reader = EpisodeReader(metadata)
    proprio, actions = reader.numbers(0)
    np.testing.assert_array_equal(actions, demo.actions[kept].astype(np.float32))
    images = reader.images(0, range(len(kept)))
    for row, step in enumerate(kept):
        # The same instant, to the last bit.
        np.testing.assert_array_equal(images[row], exact[step].images)
        np.testing.assert_array_equal(proprio[row], exact[step].proprio)
        # Metres and radians that the hand goes in 4 ms.
        np.testing.assert_allclose(proprio[row], shown[step].proprio, atol=5e-3)
        # While the hand moves, the picture before the action differs from the one after it.
        assert step >= 10 or psnr(images[row], shown[step].images) > psnr(images[row], shown[step + 1].images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, "--kind is missing"),
        ({"export": True}, "give only --source and --output with it"),
        ({"kind": None, "export": True, "limit": 1}, "give only --source and --output with it"),
        ({"kind": None, "export": True, "strict": True}, "give only --source and --output with it"),
        ({"num_runners": 0}, "--num-runners 0"),
        ({"limit": 0}, "--limit 0"),
        ({"timeout": 0.0}, "--timeout 0"),
        ({"assets": "official"}, "go with --regenerate"),
        ({"image_size": 64}, "--image-size does not go with --kind libero-hdf5"),
        ({"source": Path("nowhere")}, "no demonstrations at"),
        ({"kind": "calvin"}, "needs --suite|has no lang_annotations"),
    ],
)
def test_wrong_input_ends_at_once(tmp_path, changes, message):
    folder = write_libero(tmp_path, 0, [libero_demo(4)]).parent
    given = {"kind": "libero-hdf5", "source": folder, "output": tmp_path / "demos", **changes}
    with pytest.raises(InputError, match=message):
        main(Settings(**given))
    assert not (tmp_path / "demos").exists()


def test_a_demonstration_that_is_there_twice_is_refused(tmp_path):
    path = write_libero(tmp_path, 0, [libero_demo(4)])
    shutil.copy(path, path.with_name(path.name.replace("_demo", "")))
    with pytest.raises(InputError, match="libero_object-00-00000 is there 2 times"):
        main(Settings(kind="libero-hdf5", source=path.parent, output=tmp_path / "demos"))
