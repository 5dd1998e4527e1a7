"""From what cameras, people and joints give to the policy's tensors, with everything that can be wrong said at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.pictures import prepare_picture, prepare_pictures
from avavla_ray.policy.text import make_tokenizer

_SMALLEST_IMAGE = 16
_REMEMBERED = 1024  # instructions whose tokens are kept


class Preparation:
    """Pictures, instructions and proprioception as a policy of `config` takes them.

    Raises:
        InputError: the policy has no tokenizer.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self._tokenizer = make_tokenizer(config)
        self._encoded: dict[str, Tensor] = {}

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """One (H, W, 3) uint8 RGB picture a camera -> (V, S, S, 3) uint8, S = the backbone's image_size.

        They are resized and cropped as `prepare_picture` says.

        Raises:
            InputError: another number of pictures, or one of another type, shape or order of channels.
        """
        backbone = self.config.backbone
        if not isinstance(images, (list, tuple, np.ndarray)):
            raise InputError(f"images: expected a list of arrays, one a camera, got {type(images).__name__}")
        if len(images) != backbone.num_cameras:
            raise InputError(f"images: expected {backbone.num_cameras}, one a camera, got {len(images)}")
        for index, image in enumerate(images):
            _check_image(f"images[{index}]", image)
        return np.stack([prepare_picture(image, backbone) for image in images])

    def pictures(self, images: np.ndarray) -> np.ndarray:
        """Demonstrations' pictures, see `prepare_pictures`."""
        return prepare_pictures(images, self.config.backbone)

    def text(self, instruction: str) -> Tensor:
        """(L,) int64 token ids.

        Raises:
            InputError: the instruction is empty, too long, or no text.
        """
        if not isinstance(instruction, str):
            raise InputError(f"instruction: expected text, got {type(instruction).__name__}")
        try:
            instruction.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"instruction: expected text, got half a character at {error.start}") from error
        encoded = self._encoded.get(instruction)
        if encoded is None:
            if len(self._encoded) >= _REMEMBERED:
                self._encoded.clear()  # a server is asked whatever its clients think of
            encoded = self._encoded[instruction] = self._tokenizer.encode(instruction)
        return encoded

    def proprio(self, proprio: np.ndarray | None, statistics: Statistics) -> np.ndarray:
        """(..., P) in the data's units -> normalised float32; a policy without proprioception makes (..., 0) of
        anything.

        Raises:
            InputError: it is missing, of another width, or not finite.
        """
        P = self.config.proprio_dim
        if P == 0:
            return np.zeros((0,) if proprio is None else (*np.shape(proprio)[:-1], 0), np.float32)
        if proprio is None:
            raise InputError(f"proprio: expected {P} numbers, got none")
        values = _numbers("proprio", proprio)
        if values.ndim == 0 or values.shape[-1] != P:
            raise InputError(f"proprio: expected {P} numbers, got shape {values.shape}")
        return statistics.proprio.normalise(values)


def _numbers(field: str, values: np.ndarray) -> np.ndarray:
    """Float64 array of finite numbers, or an InputError that says what is not."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: expected numbers, got {type(values).__name__} ({error})") from error
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(f"{field}: expected finite numbers, got {array.flat[bad[0]]} at index {bad[0]}")
    return array


def _check_image(field: str, image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise InputError(f"{field}: expected an array (H, W, 3) of uint8, got {type(image).__name__}")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        raise InputError(f"{field}: expected channels last, (H, W, 3), got channels first, {image.shape}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{field}: expected RGB of shape (H, W, 3), got {image.shape}")
    if image.dtype != np.uint8:
        raise InputError(f"{field}: expected uint8 in 0..255, got {image.dtype}")
    if min(image.shape[:2]) < _SMALLEST_IMAGE:
        raise InputError(f"{field}: expected at least {_SMALLEST_IMAGE} pixels a side, got {image.shape[:2]}")
