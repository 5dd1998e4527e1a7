"""The HTTP side: addresses, limits, and one line for whatever is wrong. See docs/serving.md."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.serving.batching import Batcher, Decided
from actors.serving.belief_text import decode_belief
from actors.serving.conventions import Call, read_call, write_answer
from actors.serving.faults import Fault
from actors.serving.messages import Ask, BeliefArrays, PolicyFacts
from actors.serving.meter import Meter
from actors.serving.preparing import Preparer
from actors.serving.sessions import Sessions
from avavla_ray.errors import InputError

MAX_BODY = 32 * 1024 * 1024
ADDRESSES = "POST /act, POST /sessions, DELETE /sessions/SESSION, GET /health"


class Gateway:
    """Answers robots.

    Args:
        batcher: decides. sessions: keeps beliefs. unnorm_key: of requests that name none.
    """

    def __init__(self, facts: PolicyFacts, batcher: Batcher, sessions: Sessions, unnorm_key: str | None) -> None:
        self._facts = facts
        self._batcher = batcher
        self._sessions = sessions
        self._meter = Meter()
        self._preparer = Preparer(facts, unnorm_key)
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "prepare")
        self.app = Starlette(
            routes=[
                Route("/act", self._act, methods=["POST"]),
                Route("/sessions", self._open_session, methods=["POST"]),
                Route("/sessions/{name}", self._close_session, methods=["DELETE"]),
                Route("/health", self._health, methods=["GET"]),
            ],
            exception_handlers={
                Fault: _fault, InputError: _input_error, HTTPException: _http_error,
                ClientDisconnect: _gone, Exception: _unexpected,
            },
        )  # fmt: skip

    async def close(self) -> None:
        await self._batcher.close()
        self._pool.shutdown()

    async def _act(self, request: Request) -> Response:
        call = read_call(await _body(request), request.headers.get("session"))
        if call.session is None:
            belief = None if call.belief is None else decode_belief(call.belief, self._facts)
            decided = await self._decide(call, belief)
        else:
            with self._sessions.use(call.session) as session:
                decided = await self._decide(call, None if call.reset else session.belief)
                session.belief = decided.answer.belief
        self._meter.count(decided)
        return Response(write_answer(call, decided, self._facts), media_type="application/json")

    async def _decide(self, call: Call, belief: BeliefArrays | None) -> Decided:
        ask = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, call, belief)
        return await self._batcher(ask)

    def _prepare(self, call: Call, belief: BeliefArrays | None) -> Ask:
        config = self._facts.config
        return self._preparer(
            call.decoded_images(config.backbone.num_cameras), call.instruction,
            call.decoded_proprio(config.proprio_dim), belief, call.unnorm_key,
        )  # fmt: skip

    async def _open_session(self, request: Request) -> Response:
        return JSONResponse({"session": self._sessions.open()}, status_code=201)

    async def _close_session(self, request: Request) -> Response:
        self._sessions.close(request.path_params["name"])
        return Response(status_code=204)

    async def _health(self, request: Request) -> Response:
        facts = self._facts
        config = facts.config
        described: dict[str, Any] = {
            "policy": facts.digest, "preset": config.preset, "device": facts.device, "precision": facts.precision,
            "cameras": config.backbone.num_cameras, "image_size": config.backbone.image_size,
            "proprio": config.proprio_dim, "chunk": config.chunk, "action": config.action_dim,
            "unnorm_keys": sorted(facts.statistics), "attention": facts.attention, "compiled": facts.compiled,
            **facts.options,
        }  # fmt: skip
        return JSONResponse({**described, "sessions": len(self._sessions), **self._meter.report()})


async def _body(request: Request) -> bytes:
    """The whole body, read on for a while beyond the limit: who is still sending wouldn't see the answer.

    Raises:
        Fault: 413, it is too large.
    """
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        elif size > 4 * MAX_BODY:
            break
    if size > MAX_BODY:
        raise Fault(413, f"body: larger than {MAX_BODY} bytes: send smaller pictures, the policy resizes them anyway")
    return b"".join(parts)


def _complaint(status: int, message: str) -> JSONResponse:
    line = " ".join(message.split())
    return JSONResponse({"error": line if len(line) <= 300 else f"{line[:297]}..."}, status_code=status)


async def _fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, Fault)
    return _complaint(error.status, str(error))


async def _input_error(request: Request, error: Exception) -> Response:
    return _complaint(422, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path[:80]}"
    return _complaint(error.status_code, f"{asked}: {error.detail}; there is {ADDRESSES}")


async def _gone(request: Request, error: Exception) -> Response:
    return _complaint(400, "the client left before its request was whole")


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again afterwards, so that the server's log gets the traceback.
    return _complaint(500, "the server failed: its log says why")
