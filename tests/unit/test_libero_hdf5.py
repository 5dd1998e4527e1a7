"""LIBERO's published files: what they hold comes out as our simulator would have shown it, and damage is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from avavla_ray.demonstrations.importers import libero_demo as libero_demo_module
from avavla_ray.demonstrations.importers.source import Skipped, Source, open_source
from avavla_ray.demonstrations.schema import Episode, decode_image
from avavla_ray.errors import InputError
from tests.support.published_demos import LiberoDemo, libero_demo, write_libero

TASK = 3


def only(source: Source, index: int = 0) -> Episode:
    (episode,) = source.read(source.members()[index])
    assert isinstance(episode, Episode)
    return episode


def pictures(episode: Episode) -> np.ndarray:
    return np.array([[decode_image(picture) for picture in step] for step in episode.images])


def imported(folder: Path, demo: LiberoDemo, **options) -> Episode:
    write_libero(folder, TASK, [demo])
    return only(open_source("libero-hdf5", folder / "libero_object", **options))


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def test_each_action_gets_what_was_seen_before_it(tmp_path):
    demo = libero_demo(10)
    episode = imported(tmp_path, demo)
    info = episode.info
    assert (info.suite, info.task, info.attempt, info.steps, info.dropped) == ("libero_object", TASK, 0, 9, 1)
    assert info.instruction == "pick up the bbq sauce and place it in the basket"
    np.testing.assert_array_equal(episode.actions, demo.actions[1:].astype(np.float32))
    for camera, recorded in enumerate((demo.scene, demo.wrist)):
        # Row and column count from the other end: a half turn of the raw picture.
        np.testing.assert_array_equal(pictures(episode)[:, camera], recorded[:-1, ::-1, ::-1])
    assert episode.proprio.dtype == np.float32
    np.testing.assert_allclose(episode.proprio[:, :3], demo.robot[:-1, 2:5], rtol=1e-6)
    np.testing.assert_allclose(episode.proprio[:, 6:], demo.robot[:-1, :2], rtol=1e-6)
    for vector, quaternion in zip(episode.proprio[:, 3:6], demo.robot[:-1, 5:], strict=True):
        np.testing.assert_allclose(rotation_matrix(vector), quaternion_matrix(quaternion), atol=1e-6)


def test_antipodal_quaternions_are_one_rotation(tmp_path):
    demo = libero_demo(10)
    other = replace(demo, robot=demo.robot * np.array([1.0] * 5 + [-1.0] * 4))
    first, second = imported(tmp_path / "a", demo), imported(tmp_path / "b", other)
    np.testing.assert_array_equal(first.proprio, second.proprio)
    assert np.abs(np.diff(first.proprio[:, 3:6], axis=0)).max() < 1


def test_files_that_saw_before_acting_are_not_shifted(tmp_path):
    demo = libero_demo(10)
    episode = imported(tmp_path, replace(demo, joints=demo.states[:, 1:8]))
    assert (episode.info.steps, episode.info.dropped) == (10, 0)
    np.testing.assert_array_equal(pictures(episode)[:, 0], demo.scene[:, ::-1, ::-1])
    np.testing.assert_array_equal(episode.actions, demo.actions.astype(np.float32))


def test_pictures_that_were_recorded_upright_are_only_mirrored(tmp_path):
    demo = libero_demo(10)
    path = write_libero(tmp_path, TASK, [demo])
    with h5py.File(path, "a") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
    episode = only(open_source("libero-hdf5", path.parent))
    np.testing.assert_array_equal(pictures(episode)[:, 1], demo.wrist[:-1, :, ::-1])


def test_steps_that_do_nothing_go_with_their_pictures(tmp_path):
    demo = libero_demo(10)
    demo.actions[[3, 4, 8], :6] = 1e-6
    demo.actions[4:8, 6], demo.actions[8:, 6] = 1, 1  # step 4 closes the gripper
    demo.actions[:4, 6] = -1
    episode = imported(tmp_path / "a", demo)
    kept = [1, 2, 4, 5, 6, 7, 9]
    assert episode.info.dropped == 3
    np.testing.assert_array_equal(episode.actions, demo.actions[kept].astype(np.float32))
    np.testing.assert_array_equal(pictures(episode)[:, 0], demo.scene[np.array(kept) - 1][:, ::-1, ::-1])
    assert imported(tmp_path / "b", demo, keep_noops=True).info.dropped == 1


def test_an_idle_episode_leaves_nothing(tmp_path):
    demo = libero_demo(10)
    demo.actions[:, :6], demo.actions[:, 6] = 0, -1
    with pytest.raises(InputError, match="nothing left"):
        imported(tmp_path, demo)


def test_members_are_in_order_and_know_their_task(tmp_path):
    for task in (TASK, 1):
        write_libero(tmp_path, task, [libero_demo(4, seed=number) for number in range(11)])
    source = open_source("libero-hdf5", tmp_path / "libero_object")
    members = source.members()
    assert sorted({member.name for member in members}) == sorted(
        f"libero_object-{task:02d}-{number:05d}" for task in (1, TASK) for number in range(11)
    )
    numbers = [member.detail["demo"] for member in members[:11]]
    assert numbers == [f"demo_{number}" for number in range(11)]  # 2 before 10
    assert [only(source, index).info.episode for index in (0, 21)] == [members[0].name, members[21].name]


def edit(path: Path, name: str, change) -> None:
    """Replace a data set of demo_1 by what `change` makes of it; None removes it."""
    with h5py.File(path, "a") as file:
        group = file["data/demo_1"]
        values = change(group[name][:])
        del group[name]
        if values is not None:
            group[name] = values


def spoiled(index: tuple[int, ...], value: float):
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return change


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("actions", lambda values: None, "missing: actions"),
        ("obs/agentview_rgb", lambda values: None, "missing: obs/agentview_rgb"),
        ("actions", lambda values: values[:, :6], r"wrong shape: actions is \(8, 6\), expected \(any, 7\)"),
        ("actions", lambda values: values.astype(int), "wrong dtype: actions is int64, expected float"),
        ("actions", spoiled((3, 2), np.nan), r"not finite: actions\[3, 2\] is nan"),
        ("actions", spoiled((3, 2), 1.5), "out of range: action 2 of step 3 is 1.5"),
        ("actions", spoiled((3, 6), 0.0), "out of range: the gripper's command of step 3 is 0, not -1 or 1"),
        ("states", lambda values: values[:-1], r"wrong shape: states is \(7, 40\), expected \(8, any\)"),
        ("states", spoiled((7, 30), np.inf), "not finite: states"),
        ("robot_states", spoiled((0, 1), np.nan), "not finite: robot_states"),
        ("robot_states", spoiled((2, slice(5, 9)), 0.0), "out of range: the hand's quaternion of step 2"),
        ("obs/joint_states", lambda values: values + 5, "not consistent: obs/joint_states"),
        (
            "obs/joint_states",
            lambda values: values - np.diff(values, axis=0, prepend=0) / 2,
            "not consistent: obs/joint",
        ),
        ("obs/agentview_rgb", lambda values: values.astype(np.float32), "wrong dtype: obs/agentview_rgb is float32"),
        ("obs/eye_in_hand_rgb", lambda values: values[:, :16], "expected square pictures"),
        ("obs/eye_in_hand_rgb", lambda values: values[:, :16, :16], "wrong shape: obs/eye_in_hand_rgb"),
        ("obs/agentview_rgb", lambda values: values[..., :1], "wrong shape: obs/agentview_rgb"),
    ],
)
def test_a_broken_demo_is_named_and_the_others_are_read(tmp_path, name, change, reason):
    path = write_libero(tmp_path, TASK, [libero_demo(8, seed=number) for number in range(3)])
    edit(path, name, change)
    source = open_source("libero-hdf5", path.parent)
    with pytest.raises(InputError, match=f"^{reason}" if not reason.startswith("expected") else reason):
        only(source, 1)
    assert only(source, 0).info.steps == only(source, 2).info.steps == 7


def test_a_demo_of_another_length_than_told_is_broken(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8)])
    with h5py.File(path, "a") as file:
        file["data/demo_0"].attrs["num_samples"] = 9
    with pytest.raises(InputError, match="wrong shape: actions holds 8 steps, num_samples says 9"):
        only(open_source("libero-hdf5", path.parent))


def test_pictures_of_another_size_than_most_are_refused(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8, size=16), libero_demo(8), libero_demo(8)])
    source = open_source("libero-hdf5", path.parent)
    assert source.manifest()["image_size"] == 32
    assert only(source, 1).info.steps == only(source, 2).info.steps == 7
    with pytest.raises(InputError, match="wrong shape: its pictures have 16 pixels, those of most 32"):
        only(source, 0)


def test_joints_that_are_a_little_off_do_not_shift_the_pictures(tmp_path):
    demo = libero_demo(10)
    step = np.diff(demo.states[:, 1:8], axis=0).mean()
    episode = imported(tmp_path, replace(demo, joints=demo.joints - step))
    assert episode.info.dropped == 1
    np.testing.assert_array_equal(pictures(episode)[:, 0], demo.scene[:-1, ::-1, ::-1])


def test_what_says_that_it_failed_is_skipped(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8)])
    with h5py.File(path, "a") as file:
        file["data/demo_0/dones"][-1] = 0
    source = open_source("libero-hdf5", path.parent)
    assert list(source.read(source.members()[0])) == [
        Skipped("libero_object-03-00000", "not successful: its last entry of dones is 0")
    ]
    with h5py.File(path, "a") as file:
        del file["data/demo_0/dones"]
    assert only(source).info.steps == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bddl_file_name": "x/pick_up_the_milk_and_place_it_in_the_basket.bddl"}, "bddl_file_name is pick_up_the_mi"),
        ({"problem_info": '{"language_instruction": "Pick up the milk and place it in the basket"}'},
         "language_instruction is 'pick up the milk"),
        # Older files spell tasks otherwise.
        ({"bddl_file_name": "pick_the_bbq_sauce.bddl", "problem_info": '{"language_instruction": "sauce"}'}, None),
    ],
)  # fmt: skip
def test_a_file_that_is_of_another_task_than_its_name_is_refused(tmp_path, changes, message):
    path = write_libero(tmp_path, TASK, [libero_demo(8)])
    with h5py.File(path, "a") as file:
        file["data"].attrs.update(changes)
    source = open_source("libero-hdf5", path.parent)
    if message is None:
        assert only(source).info.task == TASK
    else:
        with pytest.raises(InputError, match=f"^not consistent: {message}"):
            only(source)


def unwritten(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, shape=(8, 32, 32, 3), dtype="u1")


def half_written(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, shape=(8, 32, 32, 3), dtype="u1", chunks=(3, 32, 32, 3))[:6] = 7


def huge(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, data=np.zeros((8, 64, 64, 3), np.uint8))


def elsewhere(group: h5py.Group, name: str) -> None:
    group[name] = h5py.ExternalLink("other.hdf5", f"data/demo_0/obs/{name}")


def elsewhere_raw(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, shape=(8, 32, 32, 3), dtype="u1", external=[("other.hdf5", 0, 8 * 32 * 32 * 3)])


def elsewhere_virtual(group: h5py.Group, name: str) -> None:
    layout = h5py.VirtualLayout(shape=(8, 32, 32, 3), dtype="u1")
    layout[:] = h5py.VirtualSource("other.hdf5", f"data/demo_0/obs/{name}", shape=(8, 32, 32, 3))
    group.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (unwritten, "missing: parts of obs/agentview_rgb were never written"),
        (half_written, "missing: parts of obs/agentview_rgb were never written"),
        (huge, r"wrong shape: obs/agentview_rgb is .*, more than"),
        (elsewhere, "not readable: obs/agentview_rgb is a link .ExternalLink"),
        (elsewhere_raw, "not readable: obs/agentview_rgb lies in another file"),
        (elsewhere_virtual, "not readable: obs/agentview_rgb lies in another file"),
    ],
)
def test_pictures_that_are_not_in_the_file_are_told_of(tmp_path, monkeypatch, write, message):
    path = write_libero(tmp_path, TASK, [libero_demo(8), libero_demo(8)])
    (path.parent / "other.hdf5").write_bytes(path.read_bytes())
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(libero_demo_module, "LARGEST", 8 * 64 * 64 * 3 - 1)
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/agentview_rgb"]
        write(file["data/demo_1/obs"], "agentview_rgb")
    source = open_source("libero-hdf5", path)
    assert only(source, 0).info.steps == 7
    with pytest.raises(InputError, match=f"^{message}"):
        only(source, 1)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_told_of(tmp_path, share):
    whole = write_libero(tmp_path, 1, [libero_demo(8)])
    torn = write_libero(tmp_path, TASK, [libero_demo(8)])
    torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
    source = open_source("libero-hdf5", whole.parent)
    broken = [member for member in source.members() if member.detail["file"] == torn.name]
    assert [member.where for member in broken] == [torn.name]
    with pytest.raises(InputError, match=f"^not readable: {torn.name}"):
        list(source.read(broken[0]))
    assert len(source.members()) == 2


def test_damaged_pictures_are_told_of(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8)])
    with h5py.File(path, "a") as file:
        values = file["data/demo_0/obs/agentview_rgb"][:]
        del file["data/demo_0/obs/agentview_rgb"]
        stored = file.create_dataset("data/demo_0/obs/agentview_rgb", data=values, chunks=True, fletcher32=True)
        place = stored.id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as stream:
        stream.seek(place + 100)
        stream.write(bytes(64))
    with pytest.raises(InputError, match="^not readable"):
        only(open_source("libero-hdf5", path.parent))


def test_demos_that_should_be_there_are_missed(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8), libero_demo(8)])
    with h5py.File(path, "a") as file:
        del file["data/demo_0"]
    source = open_source("libero-hdf5", path.parent)
    assert only(source, 0).info.attempt == 1
    with pytest.raises(InputError, match="^missing: 1 demonstrations of 2"):
        only(source, 1)


def test_groups_of_another_name_and_links_to_nowhere_are_told_of(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8)])
    with h5py.File(path, "a") as file:
        file.copy("data/demo_0", "data/demo_00")
    (path.parent / "not_downloaded_demo.hdf5").symlink_to("nowhere")
    source = open_source("libero-hdf5", path.parent)
    nowhere, whole, odd = source.members()
    assert len(list(source.read(whole))) == 1
    for member, message in ((odd, "^not readable: data/demo_00 is not"), (nowhere, "^not readable: not_downloaded")):
        with pytest.raises(InputError, match=message):
            list(source.read(member))


def test_a_file_of_no_known_task_is_skipped(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8), libero_demo(8)])
    path.rename(path.with_name("wash_the_dishes_demo.hdf5"))
    source = open_source("libero-hdf5", path.parent)
    found = [item for member in source.members() for item in source.read(member)]
    assert [type(item) for item in found] == [Skipped, Skipped]
    assert found[0].reason == "unknown task: libero_object has no wash_the_dishes"


def test_wrong_sources_are_refused(tmp_path):
    path = write_libero(tmp_path, TASK, [libero_demo(8)])
    assert open_source("libero-hdf5", path).suite == "libero_object"
    for options, message in (
        ({"suite": "libero_objects"}, "'libero_objects' is no LIBERO suite"),
        ({"regenerate": 8}, "image size 8 is too small"),
        ({"turn": "upright"}, "--turn does not go with --kind libero-hdf5"),
    ):
        with pytest.raises(InputError, match=message):
            open_source("libero-hdf5", path, **options)
    with pytest.raises(InputError, match="did you mean 'libero-hdf5'"):
        open_source("libero-hdf", path)
    with pytest.raises(InputError, match="no demonstrations at"):
        open_source("libero-hdf5", tmp_path / "nowhere")
    with pytest.raises(InputError, match="give --suite"):
        open_source("libero-hdf5", tmp_path)
    (tmp_path / "libero_goal").mkdir()
    with pytest.raises(InputError, match="holds no \\*.hdf5"):
        open_source("libero-hdf5", tmp_path / "libero_goal")
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="none of the 1 files"):
        open_source("libero-hdf5", path.parent)
