"""Pickled arrays from outside: data come out as they were, code does not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.demonstrations.importers.restricted_pickle import load_npy
from avavla_ray.errors import InputError

CONTENT = {
    "text": ["a", "é"], "pairs": [(0, 12), (13, 40)], "numbers": [1, 2.5, None, True, np.float32(3), np.int64(4)],
    "array": np.arange(6, dtype=np.float32).reshape(2, 3), "bytes": b"x",
}  # fmt: skip


def same(first: object, second: object) -> bool:
    return repr(first) == repr(second)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_come_out_whatever_the_protocol(tmp_path, protocol):
    array = np.array(CONTENT, object)
    with open(tmp_path / "x.npy", "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, stream, protocol=protocol)
    assert same(load_npy(tmp_path / "x.npy").item(), CONTENT)


def test_what_older_numpy_wrote_comes_out(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array(CONTENT, object))
    new = path.read_bytes()
    # Pickle protocol 4 counts the bytes of a name and of the frame around it.
    name, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    assert new.count(name) == 1
    start = new.index(b"\x95", new.index(b"\n"))
    frame = int.from_bytes(new[start + 1 : start + 9], "little") - 1
    older = new[: start + 1] + frame.to_bytes(8, "little") + new[start + 9 :]
    older = older.replace(bytes([len(name)]) + name, bytes([len(old)]) + old)
    path.write_bytes(older)
    assert same(load_npy(path).item(), CONTENT)


def test_plain_arrays_need_no_pickle(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    np.testing.assert_array_equal(load_npy(tmp_path / "x.npy"), np.arange(5))


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def test_code_is_refused_and_does_not_run(tmp_path):
    np.save(tmp_path / "x.npy", np.array({"language": Touches(tmp_path / "made")}, object))
    with pytest.raises(InputError, match=r"x\.npy is no readable .npy file \(it asks for posix\.mkdir"):
        load_npy(tmp_path / "x.npy")
    assert not (tmp_path / "made").exists()


def test_what_is_named_often_is_made_once(tmp_path):
    laughs = [0] * 10
    for _ in range(12):  # 10^13 numbers, if each were made
        laughs = [laughs] * 10
    np.save(tmp_path / "x.npy", np.array({"laughs": laughs}, object))
    made = load_npy(tmp_path / "x.npy").item()["laughs"]
    assert made[0] is made[9]
    assert len(made) == 10


def test_damage_is_one_line(tmp_path):
    path, random = tmp_path / "x.npy", np.random.default_rng(0)
    np.save(path, np.array(CONTENT, object))
    whole = path.read_bytes()
    told = []
    for trial in range(400):
        damaged = bytearray(whole)
        damaged[int(random.integers(len(whole)))] = int(random.integers(256))
        path.write_bytes(damaged if trial % 4 else whole[: int(random.integers(len(whole)))])
        try:
            load_npy(path)
        except InputError as error:
            told.append(str(error))
    assert len(told) > 150
    assert not any("\n" in line for line in told)
    with pytest.raises(InputError, match="missing"):
        load_npy(tmp_path / "nothing.npy")
