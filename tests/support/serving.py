"""A policy server inside the test's own process, and what robots send to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import http.client
import io
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actors.serving.messages import Answer, Ask
from actors.serving.replica import PolicyPlan, PolicyReplica
from actors.serving.start import ServingPlan, bind, listen
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.folder import open_folder
from tests.support.policies import some_statistics, stirred_policy, tiny

INSTRUCTION = "pick up the red block"


def write_checkpoint(folder: Path, config: PolicyConfig | None = None, names: Sequence[str] = ("noise",)) -> Path:
    """A stirred policy of the tiny preset, or of another configuration, with statistics by these names."""
    policy = stirred_policy(config or tiny())
    known = some_statistics(policy.config.action_dim, policy.config.proprio_dim)
    statistics = {name: dataclasses.replace(known, name=name) for name in names}
    save_checkpoint(folder, policy, statistics, stage="bc", provenance={})
    return folder


def encoded(array: np.ndarray) -> dict[str, Any]:
    """An array as the json_numpy package writes it."""
    content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"__numpy__": content, "dtype": array.dtype.str, "shape": list(array.shape)}


def decoded(value: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(value["__numpy__"]), value["dtype"]).reshape(value["shape"])


def picture_text(image: np.ndarray, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def observation(seed: int, size: int = 32) -> dict[str, Any]:
    """Arguments of `AvaVlaPolicy.act`: noise pictures of two cameras and proprioception of 8 numbers."""
    random = np.random.default_rng(seed)
    images = [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(2)]
    return {"images": images, "instruction": INSTRUCTION, "proprio": random.normal(size=8).astype(np.float32)}


def body(seed: int, size: int = 32, **more: Any) -> dict[str, Any]:
    """The same observation as a request's body."""
    seen = observation(seed, size)
    images = [encoded(image) for image in seen["images"]]
    return {"images": images, "instruction": INSTRUCTION, "proprio": seen["proprio"].tolist(), **more}


def policy_plan(checkpoint: Path, precision: str | None = None, **options: Any) -> PolicyPlan:
    return PolicyPlan(str(checkpoint), open_folder(checkpoint, verify=False).digest, "cpu", precision, 1, options)


class Client:
    """One connection that stays open."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=60)

    def call(self, method: str, path: str, content: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and decoded body; `content` is sent as it is where it's text or bytes, else as JSON."""
        sent = content if isinstance(content, str | bytes | None) else json.dumps(content)
        self._connection.request(method, path, sent, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def good(self, method: str, path: str, content: Any = None, **headers: str) -> Any:
        status, answer = self.call(method, path, content, **headers)
        assert 200 <= status < 300, answer
        return answer


@contextlib.contextmanager
def local_server(checkpoint: Path, plan: ServingPlan | None = None, **options: Any) -> Iterator[str]:
    """Everything but Ray: the policy answers in this process. Yields the address."""
    replica = PolicyReplica(policy_plan(checkpoint, **options))
    listener = bind("127.0.0.1", 0)
    started, failures = threading.Event(), []
    handle: dict[str, Any] = {}

    async def decide(asks: Sequence[Ask]) -> Sequence[Answer]:
        return await asyncio.to_thread(replica.decide, asks)

    async def main() -> None:
        handle["loop"], handle["end"] = asyncio.get_running_loop(), asyncio.Event()
        await listen(listener, replica.facts(), decide, plan or ServingPlan(), started.set, handle["end"])

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
            started.set()
            raise

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    assert not failures
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        handle["loop"].call_soon_threadsafe(handle["end"].set)
        thread.join(30)
        assert not thread.is_alive()
