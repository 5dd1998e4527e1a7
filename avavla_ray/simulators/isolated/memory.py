"""Anonymous memory that a simulator's process writes pictures to and its owner reads them from.

It has no name: nothing of it can be left in /dev/shm, however its users die.
"""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np


class SharedMemory:
    """A growing piece of memory behind a file descriptor that another process can be handed.

    It never shrinks, and the kernel is told so: reading what the other side has cut off would kill this process.

    Args:
        descriptor: of the other side's memory; a new piece is made when left out.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.memfd_create("avavla-simulator", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def grow(self, size: int) -> None:
        """Make it at least `size` bytes long."""
        if os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, size)

    def view(self, shape: tuple[int, ...], dtype: str, offset: int = 0) -> np.ndarray:
        """The bytes from `offset` as an array. Drop it before the memory grows or is closed.

        Raises:
            ValueError: the memory is shorter than that.
        """
        count = int(np.prod(shape))
        end = offset + count * np.dtype(dtype).itemsize
        if self._map is None or len(self._map) < end:
            size = os.fstat(self.descriptor).st_size
            if size < end:
                raise ValueError(f"{size} bytes of shared memory hold no {dtype} {shape} at {offset}")
            self._unmap()
            self._map = mmap.mmap(self.descriptor, size)
        return np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    def write(self, array: np.ndarray, offset: int = 0) -> int:
        """Copy `array` to `offset`, growing as needed; returns the offset behind it, a multiple of 64."""
        self.grow(offset + array.nbytes)
        if array.size:
            self.view(array.shape, array.dtype.str, offset)[...] = array
        return -(-(offset + array.nbytes) // 64) * 64

    def read(self, shape: tuple[int, ...], dtype: str, offset: int = 0) -> np.ndarray:
        """A copy of the array at `offset`."""
        if not np.prod(shape):
            return np.zeros(shape, dtype)
        return self.view(shape, dtype, offset).copy()

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def close(self) -> None:
        self._unmap()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
