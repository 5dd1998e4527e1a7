"""Arrays and pictures inside JSON, without pickle.

Arrays travel as the json_numpy package writes them: {"__numpy__": base64, "dtype": "<f4", "shape": [...]}.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from avavla_ray.errors import InputError

# Nothing else is decoded: no objects, no structures, no strings. str(dtype) is what some clients write.
DTYPES = {
    name: np.dtype(kind)
    for kind in ("|u1", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
    for name in (kind, str(np.dtype(kind)))
}
# Pixels; a picture beyond it is refused before it is unpacked. One of this size has 12 MiB, and a request one a camera.
MAX_SIDE = 2048


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """An array in json_numpy's form."""
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"__numpy__": content, "dtype": array.dtype.str, "shape": list(array.shape)}


def is_array(value: Any) -> bool:
    return isinstance(value, dict) and "__numpy__" in value


def decode_array(field: str, value: dict[str, Any]) -> np.ndarray:
    """The array that `encode_array` or json_numpy wrote; read-only.

    Raises:
        InputError: another type than DTYPES, or a shape that doesn't fit the bytes.
    """
    kind, shape = value.get("dtype"), value.get("shape")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise InputError(f"{field}: array of type {_short(kind)}, expected one of {', '.join(sorted(DTYPES))}")
    if not isinstance(shape, list) or len(shape) > 4 or not all(type(n) is int and 0 <= n <= 2**31 for n in shape):
        raise InputError(f"{field}: array of shape {_short(shape)}, expected a list of at most 4 lengths")
    content = decode_base64(field, value["__numpy__"])
    expected = math.prod(shape) * DTYPES[kind].itemsize
    if len(content) != expected:
        raise InputError(f"{field}: {len(content)} bytes, an array {shape} of {kind} has {expected}")
    return np.frombuffer(content, DTYPES[kind]).reshape(shape)


def decode_image(field: str, value: Any) -> np.ndarray:
    """(H, W, 3) uint8 from a base64 PNG or JPEG, or from an array in json_numpy's form.

    Raises:
        InputError: not a picture, another format, shape or type, or too large.
    """
    if is_array(value):
        image = decode_array(field, value)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"{field}: {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3]")
        if 0 in image.shape or max(image.shape) > MAX_SIDE:
            raise InputError(f"{field}: {list(image.shape)}, sides must be 1 to {MAX_SIDE} pixels")
        return image
    if not isinstance(value, str):
        raise InputError(f"{field}: {_short(value)}, expected a base64 PNG or JPEG, or a json_numpy array")
    # Pillow's own check of huge pictures warns only; sides are looked at before anything is unpacked.
    try:
        with Image.open(io.BytesIO(decode_base64(field, value)), formats=("PNG", "JPEG")) as picture:
            if max(picture.size) > MAX_SIDE:
                raise InputError(f"{field}: {picture.size[0]}x{picture.size[1]} pixels, at most {MAX_SIDE} a side")
            if picture.mode not in ("RGB", "RGBA"):
                raise InputError(f"{field}: picture of mode {picture.mode}, expected RGB")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{field}: not a whole PNG or JPEG") from error


def decode_numbers(field: str, value: Any, length: int) -> np.ndarray:
    """(length,) float32 from a list of numbers or an array.

    Raises:
        InputError: another length, or something that isn't a finite number.
    """
    if is_array(value):
        array = decode_array(field, value)
    else:
        numeric = isinstance(value, list) and all(type(number) in (int, float) for number in value)
        if not numeric:
            raise InputError(f"{field}: {_short(value)}, expected a list of {length} numbers")
        array = np.array([_float(field, number) for number in value])
    if array.shape != (length,):
        raise InputError(f"{field}: shape {list(array.shape)}, expected [{length}]")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(f"{field}: holds NaN or an infinite number, expected finite numbers")
    return numbers


def _float(field: str, number: float) -> float:
    try:
        return float(number)
    except OverflowError as error:
        raise InputError(f"{field}: a number is too large") from error


def decode_base64(field: str, value: Any) -> bytes:
    """Bytes from base64 text.

    Raises:
        InputError: not base64.
    """
    if not isinstance(value, str):
        raise InputError(f"{field}: {_short(value)}, expected base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{field}: not base64 ({error})") from error


def _short(value: Any) -> str:
    """A value in a message that stays one short line."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."
