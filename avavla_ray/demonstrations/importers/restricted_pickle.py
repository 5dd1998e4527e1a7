"""Pickled .npy files of strangers: arrays, containers, text and numbers come out, and no code is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avavla_ray.errors import InputError

# What numpy's pickles are built with, under numpy's old and new names.
_BUILDERS = {
    "_reconstruct": np.ndarray(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", name): builder for core in ("core", "_core") for name, builder in _BUILDERS.items()
    },
}


class _DataOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain data")
        return _ALLOWED[module, name]


def _read(stream: BinaryIO) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(stream)
    if dtype.hasobject:
        return _DataOnly(stream).load()
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def load_npy(path: Path) -> np.ndarray:
    """The array in a .npy file, also one of Python objects.

    Raises:
        InputError: no such file, damaged, or it holds anything but arrays, containers, text and numbers.
    """
    try:
        with open(path, "rb") as stream:
            array = _read(stream)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (pickle.UnpicklingError, ValueError, EOFError, OSError, TypeError, AttributeError, IndexError) as error:
        # A damaged pickle fails in whatever its bytes happen to ask for.
        raise InputError(f"{path} is no readable .npy file ({error})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds a {type(array).__name__}, not an array")
    return array
