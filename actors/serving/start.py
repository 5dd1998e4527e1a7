"""From a checkpoint and an address to a server that answers until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from actors.serving.app import Gateway
from actors.serving.batching import Batcher, Decide
from actors.serving.faults import Fault
from actors.serving.messages import Answer, Ask, PolicyFacts
from actors.serving.replica import PolicyPlan, PolicyReplica
from actors.serving.sessions import Sessions
from avavla_ray.errors import InputError
from avavla_ray.machines import for_learners

# A policy that is being started again may need minutes to load; a request must not wait for ever.
DECISION_SECONDS = 300.0


@dataclass(frozen=True)
class ServingPlan:
    """How requests are served.

    Attributes:
        replicas: policies that share the robots.
        max_batch, batch_wait_ms: see `Batcher`. session_minutes, max_sessions: see `Sessions`.
        unnorm_key: data set whose units are meant where a request names none.
    """

    replicas: int = 1
    max_batch: int = 16
    batch_wait_ms: float = 2.0
    session_minutes: float = 10.0
    max_sessions: int = 1000
    unnorm_key: str | None = None


BACKLOG = 2048  # connections that wait to be taken, as uvicorn has it
GRACE_SECONDS = 10


def bind(host: str, port: int) -> socket.socket:
    """A socket at that address, before anything slow starts; port 0 takes a free one.

    Raises:
        InputError: the port is taken, or the host isn't this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Named so, asyncio turns Nagle's algorithm off; with it an answer would wait 40 ms for the client's receipt.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # A port is taken when somebody listens there, not before; who connects until requests are answered waits.
        listener.listen(BACKLOG)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror or error}: give another one") from error
    except OverflowError as error:
        raise InputError(f"--port {port}: expected 0 to 65535") from error
    return listener


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: they raise the signal anew at the end, and the job would not exit with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def listen(
    listener: socket.socket,
    facts: PolicyFacts,
    decide: Decide,
    plan: ServingPlan,
    ready: Callable[[], None],
    end: asyncio.Event,
) -> None:
    """Answer until `end` is set; requests under way have GRACE_SECONDS to be answered before it returns.

    Args:
        decide: one forward pass for a batch. ready: called when requests are answered.
    """
    batcher = Batcher(decide, max_batch=plan.max_batch, wait_seconds=plan.batch_wait_ms / 1e3, at_once=plan.replicas)
    gateway = Gateway(facts, batcher, Sessions(60 * plan.session_minutes, plan.max_sessions), plan.unnorm_key)
    server = _Server(
        uvicorn.Config(
            gateway.app, log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=60,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        ending = asyncio.create_task(end.wait())
        await asyncio.wait([serving, ending], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        await gateway.close()


def listen_until_signal(
    listener: socket.socket, facts: PolicyFacts, decide: Decide, plan: ServingPlan, ready: Callable[[], None]
) -> None:
    """`listen` until SIGINT or SIGTERM."""

    async def main() -> None:
        end = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end.set)
        await listen(listener, facts, decide, plan, ready, end)

    asyncio.run(main())


def interrupted_by_sigterm() -> None:
    """Until somebody listens, SIGTERM ends the start as Ctrl-C does, with what was deployed taken back. To be called
    after Ray has set its own handler."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def deployed(name: str, plan: PolicyPlan, replicas: int) -> Iterator[Any]:
    """Policies on the cluster, by their Serve handle; gone when the block ends.

    Args:
        name: of the Serve application; one left over from a job that was killed is replaced.
    """
    from ray import serve
    from ray.exceptions import ActorAlreadyExistsError
    from ray.serve.schema import LoggingConfig

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    deployment = serve.deployment(
        PolicyReplica, name="policy", num_replicas=replicas, max_ongoing_requests=1, logging_config=quiet,
        health_check_period_s=2, max_constructor_retry_count=2, graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={
            "num_cpus": plan.threads, "num_gpus": plan.gpu_share if plan.device == "cuda" else 0,
            "resources": for_learners(),
        },
    )  # fmt: skip
    # Requests come through this process, not through Serve's proxy: see the package's docstring.
    try:
        serve.start(proxy_location="Disabled", logging_config=quiet)
    except ActorAlreadyExistsError:  # another server of this cluster began at the same moment, and both now have one
        serve.start(proxy_location="Disabled", logging_config=quiet)
    try:
        try:
            handle = serve.run(deployment.bind(plan), name=name, route_prefix=None, logging_config=quiet)
        except RuntimeError as error:  # its constructor doesn't raise
            logging.getLogger(__name__).error("Ray Serve can't start the policy", exc_info=error)
            raise InputError(
                f"checkpoint {plan.checkpoint}: the policy's process doesn't survive its start: is there enough memory?"
            ) from error
        yield handle
    finally:
        serve.delete(name)


def remote_decide(handle: Any) -> Decide:
    """`PolicyReplica.decide` behind a Serve handle, with what can befall it said as a `Fault` or `InputError`."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    async def decide(asks: Sequence[Ask]) -> Sequence[Answer | InputError]:
        try:
            async with asyncio.timeout(DECISION_SECONDS):
                return await handle.decide.remote(list(asks))
        except RayTaskError as error:  # raised by the policy; Ray's own text is for developers
            if isinstance(error.cause, InputError):
                raise InputError(str(error.cause)) from error
            logging.getLogger(__name__).error("the policy failed to decide", exc_info=error)
            raise Fault(500, "the policy failed to decide: the server's log says why") from error
        except (RayError, RayServeException) as error:
            raise Fault(
                503, "the policy's process died and is started again: send the request once more, its belief is kept"
            ) from error
        except TimeoutError as error:
            raise Fault(503, f"no decision within {DECISION_SECONDS:g} seconds: is the policy being loaded?") from error

    return decide
