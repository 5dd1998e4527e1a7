"""SIGTERM as an ending that can be tidied up after."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def leaving_on_sigterm(said: str | None = None) -> Iterator[None]:
    """SIGTERM ends the block by SystemExit, unless somebody else has said what it does.

    Args:
        said: what is then printed on standard error.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        if said is not None:
            print(said, file=sys.stderr, flush=True)
        raise SystemExit(1)

    own = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if own:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if own and signal.getsignal(signal.SIGTERM) == leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
