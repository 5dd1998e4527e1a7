"""One session a robot: the belief that its episode carries from decision to decision."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator

from actors.serving.faults import Fault
from actors.serving.messages import BeliefArrays


class Session:
    """belief: None before the first decision of an episode. used: when it was last asked, seconds."""

    def __init__(self, used: float) -> None:
        self.belief: BeliefArrays | None = None
        self.used = used
        self.busy = False


class Sessions:
    """The open sessions. Used by one event loop only.

    Args:
        idle_seconds: a session that isn't asked for so long is closed.
        limit: of open sessions.
        clock: seconds that never run backwards.
    """

    def __init__(self, idle_seconds: float, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle_seconds = idle_seconds
        self._limit = limit
        self._clock = clock
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        self._expire()
        return len(self._open)

    def open(self) -> str:
        """A new session's name.

        Raises:
            Fault: 429, there are too many.
        """
        self._expire()
        if len(self._open) >= self._limit:
            raise Fault(
                429, f"{self._limit} sessions are open, the server's limit: close one, or wait for one to expire"
            )
        name = secrets.token_urlsafe(16)
        self._open[name] = Session(self._clock())
        return name

    def close(self, name: str) -> None:
        """Forget a session.

        Raises:
            Fault: 404, there is none of that name.
        """
        self._find(name)
        del self._open[name]

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[Session]:
        """The session while one decision is made; its idle time starts again when the decision is there.

        Raises:
            Fault: 404, there is none of that name; 409, another request of it is being decided.
        """
        session = self._find(name)
        if session.busy:
            raise Fault(409, "this session has a decision under way: wait for its answer, or open a session a robot")
        session.busy = True
        try:
            yield session
        finally:
            session.busy = False
            session.used = self._clock()

    def _find(self, name: str) -> Session:
        self._expire()
        if name not in self._open:
            raise Fault(
                404,
                f"no session {name[:40]!r}: it was closed, idle for {self._idle_seconds / 60:g} minutes, or the server "
                "started anew; open another with POST /sessions and begin the episode anew",
            )
        return self._open[name]

    def _expire(self) -> None:
        oldest = self._clock() - self._idle_seconds
        self._open = {name: one for name, one in self._open.items() if one.busy or one.used > oldest}
