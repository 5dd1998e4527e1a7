"""Pickled .npy files of strangers: arrays, containers, text and numbers come out, and no code is run.

Not numpy's own either: it believes what a pickle says of an array, and damaged ones crash it. Stand-ins take down what
the pickle says, and arrays are made from that after it has been checked.
"""

from __future__ import annotations

import pickle
import re
import tokenize
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avavla_ray.errors import InputError

NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,6}")
# What damaged bytes raise in numpy's reader of headers and in pickle: whatever they happen to ask for.
DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError, pickle.UnpicklingError, tokenize.TokenError,
)  # fmt: skip
PLAIN = (str, bytes, int, float, bool, type(None))


class _Dtype:
    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def checked(self) -> np.dtype:
        if not NUMBERS.fullmatch(self.code) or self.order not in ("|", "<", ">"):
            raise pickle.UnpicklingError(f"it holds an array of {self.order}{self.code}")
        return np.dtype(self.order + self.code)


class _Array:
    """What a pickle says of an array; `data` are bytes, or a list where the elements are objects."""

    def __init__(self, data: Any = b"", dtype: Any = None, shape: tuple[int, ...] = (), order: str = "C") -> None:
        self.shape, self.dtype, self.order, self.data = shape, dtype, order, data

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"

    def made(self, known: dict[int, Any]) -> np.ndarray:
        order: Any = self.order
        if not isinstance(self.data, list):
            return np.frombuffer(self.data, self.dtype.checked()).reshape(self.shape, order=order)
        array = np.empty(len(self.data), object)
        for index, value in enumerate(self.data):
            array[index] = _plain(value, known)
        return array.reshape(self.shape, order=order)


def _scalar(dtype: _Dtype, data: bytes) -> _Array:
    return _Array(data, dtype)


def _begun(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How old pickle protocols spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


_BUILDERS = {"multiarray._reconstruct": _begun, "multiarray.scalar": _scalar, "numeric._frombuffer": _Array}
_ALLOWED: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
    # numpy's old and new names.
    **{f"numpy.{core}.{name}": builder for core in ("core", "_core") for name, builder in _BUILDERS.items()},
}


class _DataOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        place = f"{module}.{name}"
        if place not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {place}, which is no plain data")
        return _ALLOWED[place]


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """`value` with arrays for their stand-ins.

    Args:
        known: what has been made of objects by their id. A pickle of a few bytes can name one object 10^9 times.
    """
    if isinstance(value, PLAIN):
        return value
    if id(value) not in known:
        known[id(value)] = _made(value, known)
    return known[id(value)]


def _made(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        array = value.made(known)
        return array[()] if array.ndim == 0 and array.dtype != object else array
    if isinstance(value, dict):
        return {_plain(key, known): _plain(entry, known) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry, known) for entry in value)
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, which is no plain data")


def _read(stream: BinaryIO) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(stream)
    if dtype.hasobject:
        return _plain(_DataOnly(stream).load(), {})
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
    except DAMAGE as error:
        raise InputError(f"{path} is no readable .npy file ({' '.join(str(error).split())})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds a {type(array).__name__}, not an array")
    return array
