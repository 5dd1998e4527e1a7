"""A run's folder, published again and again while the run goes on, and once more when it ends."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.storage.publisher import Overtaken, Publisher
from avavla_ray.storage.transfers import Interrupted

EVERY = "AVAVLA_PUBLISH_SECONDS"  # environment: seconds between two publications
EVERY_S = 60.0
PATIENCE_S, TOLD_TO_END_S = 300.0, 20.0
RETRY_S = 2.0


def every() -> float:
    """Seconds between two publications.

    Raises:
        InputError: AVAVLA_PUBLISH_SECONDS is no number above 0.
    """
    text = os.environ.get(EVERY) or str(EVERY_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(f"{EVERY}={text}: give seconds, more than 0")
    return seconds


class Unpublished(RuntimeError):
    """The store has not got everything."""


class Mirror:
    """Inside a `with` block, keeps a store at what a folder holds. Whatever the store does, the block goes on.

    Args:
        every: seconds between two publications, if there is anything new.
        patience: seconds, at the end, without a byte that goes to the store, until it is given up; `told_to_end`
            where the block ends with SystemExit or KeyboardInterrupt, since whoever sends signals gives little time.
        say: takes a line for people.
    """

    def __init__(
        self, publisher: Publisher, every: float = EVERY_S, patience: float = PATIENCE_S,
        told_to_end: float = TOLD_TO_END_S, say: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.publisher, self._every, self._patience, self._told_to_end = publisher, every, patience, told_to_end
        self._say = say or (lambda line: print(line, flush=True))
        self._wake, self._ending = threading.Event(), False
        self._outage: dict[str, Any] | None = None
        self._outages = publisher.outages
        self._ended: InputError | None = None  # why nothing more can be published
        self._complete = False
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    @property
    def overtaken(self) -> bool:
        """Somebody else has published there: nothing of this process's will be any more."""
        return self._ended is not None

    def nudge(self) -> None:
        """There is something that should be published soon."""
        self._wake.set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Publish what there is, for as long as the store takes it.

        Raises:
            Unpublished: it does not take it, and the block itself ended without an exception.
        """
        told = kind is not None and issubclass(kind, (SystemExit, KeyboardInterrupt))
        self._ending = True
        self._wake.set()
        self._wait(self._told_to_end if told else self._patience)
        if self._complete:
            newest = self.publisher.newest
            files = f"generation {newest.generation}, {len(newest.files)} files"
            if newest.generation:  # else the job was refused before it wrote anything
                self._say(f"published to {self.publisher.root} ({files})")
            return
        why = self._ended or (self._outage or {}).get("reason") or "it took too long"
        line = (
            f"not everything is published to {self.publisher.root} ({why}); all of it lies in {self.publisher.folder}"
        )
        if self._ended is not None:  # to publish it there would replace the other's
            line += ", and needs another address"
        else:
            line += (
                f": publish it with 'python -m avavla_ray.storage.publish {self.publisher.folder} "
                f"{self.publisher.root}', or repeat the command there with --resume"
            )
        if error is None:
            raise Unpublished(line)
        self._say(line)

    def _wait(self, patience: float) -> None:
        """Until the thread has ended; it is told to when nothing has moved for too long."""
        passed, since = self.publisher.passed, time.monotonic()
        try:
            while self._thread.is_alive() and time.monotonic() - since < patience:
                self._thread.join(0.2)
                if self.publisher.passed != passed:
                    passed, since = self.publisher.passed, time.monotonic()
        finally:
            self.publisher.stop.set()
            self._wake.set()
        self._thread.join()  # a question to a store that does not answer is given up within a minute

    def _run(self) -> None:
        while True:
            self._wake.wait(RETRY_S if self._ending else self._every)
            self._wake.clear()
            last = self._ending  # after the clearing, so that no call to end is missed
            if self._publish() and last:
                self._complete = True
                return
            if self.publisher.stop.is_set() or self._ended is not None:
                return

    def _publish(self) -> bool:
        """Whether the store has what the folder held at some moment since the call."""
        publisher, outage = self.publisher, self._outage
        if outage is not None:
            publisher.outages = [*self._outages, {**outage, "to": time.time()}]
        try:
            if not publisher.changed():
                return True
            publisher.publish()
        except Interrupted:
            return False
        except Overtaken as error:
            self._ended = error
            self._say(f"{error}; the run goes on, its results lie in {publisher.folder}")
            return False
        except Exception as error:  # noqa: BLE001 - nor may a fault of ours end the run
            if outage is None:
                reason = str(error) if isinstance(error, InputError) else f"{publisher.root}: {error!r}"
                self._outage = {"from": time.time(), "reason": reason}
                self._say(f"{reason}; the run goes on, and what it writes is published when that is mended")
            return False
        if outage is not None:
            self._say(f"{publisher.root} takes files again and has all")
            self._outage, self._outages = None, publisher.outages
        return True
