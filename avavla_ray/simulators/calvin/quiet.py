"""Keeps what PyBullet and the imports of calvin_env say to themselves out of a job's output."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import warnings
from collections.abc import Iterator

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """No deprecation notices of gym and hydra, which nobody here can act on, and no build time of PyBullet."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), quiet_engine(STDOUT, STDERR):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quiet_engine(*descriptors: int) -> Iterator[None]:
    """Nothing of what C code prints to standard output, or to the given descriptors, reaches anybody."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept = {descriptor: os.dup(descriptor) for descriptor in descriptors or (STDOUT,)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in kept:
            os.dup2(nowhere, descriptor)
        yield
    finally:
        flush(None)
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)
