"""What a client is told instead of an answer: a status and one line."""

from __future__ import annotations


class Fault(Exception):
    """A request that gets no answer.

    Attributes:
        status: of the HTTP response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
