#!/usr/bin/env python
"""A policy server under load: decisions a second and latency by number of robots, with batching and without.

Two servers of the same policy run beside each other, one of them deciding on one request at a time. Their rounds are
taken in turns, so that whatever else the machine does falls on both alike. Every robot asks again as soon as it has its
answer, as a robot that executes its chunk meanwhile doesn't: the numbers are the most that the server carries.
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import run_job
from avavla_ray.files import write_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    quick: bool = False
    """Short rounds; ends within 45 s on 2 cores."""
    json: Path | None = None
    """File for the numbers."""
    preset: str = "small"
    """Policy to build, with random weights."""
    checkpoint: Path | None = None
    """Serve this one instead."""
    clients: tuple[int, ...] = (1, 4, 16)
    max_batch: int = 16
    batch_wait_ms: float = 2.0
    device: Literal["cpu", "cuda"] = "cpu"
    """On cuda both servers share one GPU, and an OpenVLA's random weights are made there in bfloat16."""
    serve: str = ""
    """Further options of jobs/serve.py for both servers, for instance "--depth 2 --compile --attention flash"."""


@dataclass
class Load:
    """What the robots saw: milliseconds of each request, what of them wasn't deciding or waiting, batch sizes."""

    seconds: float = 0.0
    latency: list[float] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)
    batch: list[int] = field(default_factory=list)

    def report(self) -> dict[str, float]:
        ranked = sorted(self.latency)
        return {
            "decisions_per_s": len(ranked) / self.seconds,
            "p50_ms": statistics.median(ranked),
            "p90_ms": ranked[int(0.9 * (len(ranked) - 1))],
            "overhead_ms": statistics.median(self.overhead),
            "mean_batch": len(self.batch) / sum(1 / size for size in self.batch),
        }


def make_checkpoint(folder: Path, preset_name: str, device: str) -> Path:
    """A checkpoint of random weights."""
    import numpy as np
    import torch

    from avavla_ray.normalisation import FieldStatistics, Statistics
    from avavla_ray.policy.checkpoint import save_checkpoint
    from avavla_ray.policy.config import BackboneConfig, preset
    from avavla_ray.policy.policy import AvaVlaPolicy

    torch.manual_seed(0)
    config = preset(preset_name)
    if isinstance(config.backbone, BackboneConfig):
        policy = AvaVlaPolicy(config)
    else:
        # transformers takes seconds to import.
        from benchmarks.policy_cost.subjects import make_policy
        from benchmarks.stand_in_tokenizer import stand_in_tokenizer

        policy = make_policy(preset_name, None, device, "bfloat16" if device == "cuda" else "float32")
        policy.config = dataclasses.replace(policy.config, tokenizer=stand_in_tokenizer(config.backbone))
    random = np.random.default_rng(0)
    action, proprio = (
        FieldStatistics.of(random.normal(size=(64, width)))
        for width in (policy.config.action_dim, policy.config.proprio_dim)
    )
    save_checkpoint(folder, policy, Statistics("noise", action, proprio, 1, 64), stage="none", provenance={})
    del policy
    if device == "cuda":
        torch.cuda.empty_cache()  # the servers need the room
    return folder


def start_server(checkpoint: Path, max_batch: int, settings: Settings) -> subprocess.Popen[str]:
    """A jobs/serve.py."""
    import ray

    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "jobs" / "serve.py"), "--checkpoint", str(checkpoint), "--port", "0",
            "--max-batch", str(max_batch), "--batch-wait-ms", str(settings.batch_wait_ms), "--device", settings.device,
            "--gpu-share", "0.5", *shlex.split(settings.serve),
        ],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def address_of(process: subprocess.Popen[str]) -> str:
    """Of a server, once it answers."""
    assert process.stdout is not None
    for line in process.stdout:
        if "http://" in line:
            return line.split("http://")[1].strip()
    raise RuntimeError(f"the server ended with status {process.wait()}")


def ask_for(address: str, clients: int, seconds: float, load: Load) -> None:
    """Let so many robots ask for so long, each with a session and pictures of its own."""

    def robot(seed: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=300)

        def call(method: str, path: str, body: Any = None) -> Any:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{answer.status} {content.decode()}")
            return json.loads(content or b"null")

        facts = call("GET", "/health")
        session = call("POST", "/sessions")["session"]
        body = request_body(facts, session, seed)
        ready.wait()
        while time.perf_counter() < end[0]:
            start = time.perf_counter()
            decision = call("POST", "/act", body)
            taken = 1e3 * (time.perf_counter() - start)
            load.latency.append(taken)
            load.overhead.append(taken - decision["milliseconds"] - decision["queued_milliseconds"])
            load.batch.append(decision["batch"])
        call("DELETE", f"/sessions/{session}")

    end = [0.0]

    def go() -> None:
        end[0] = time.perf_counter() + seconds

    ready = threading.Barrier(clients, action=go)
    robots = [threading.Thread(target=robot, args=(seed,)) for seed in range(clients)]
    for thread in robots:
        thread.start()
    for thread in robots:
        thread.join()
    load.seconds += time.perf_counter() - (end[0] - seconds)


def request_body(facts: dict[str, Any], session: str, seed: int) -> str:
    """An observation of noise pictures of the policy's own size."""
    import numpy as np

    random = np.random.default_rng(seed)
    size = facts["image_size"]
    pictures = random.integers(0, 256, (facts["cameras"], size, size, 3), dtype=np.uint8)
    images = [
        {"__numpy__": base64.b64encode(picture).decode(), "dtype": "|u1", "shape": picture.shape}
        for picture in pictures
    ]
    return json.dumps(
        {
            "images": images, "instruction": "pick up the alphabet soup and place it in the basket",
            "proprio": random.normal(size=facts["proprio"]).tolist(), "session": session,
        }
    )  # fmt: skip


def main(settings: Settings) -> None:
    from actors.cluster import connect
    from avavla_ray.provenance import git_commit, machine

    rounds, seconds = (2, 0.8) if settings.quick else (5, 6.0)
    few, many = min(settings.clients), max(settings.clients)
    counts = sorted({few, many}) if settings.quick else settings.clients
    connect(cpus=2)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = settings.checkpoint or make_checkpoint(
            Path(folder) / settings.preset, settings.preset, settings.device
        )
        servers = {
            "batched": start_server(checkpoint, settings.max_batch, settings),
            "one by one": start_server(checkpoint, 1, settings),
        }
        loads = {(name, clients): Load() for clients in counts for name in servers}
        try:
            addresses = {name: address_of(process) for name, process in servers.items()}
            for address in addresses.values():
                ask_for(address, 1, 0.5, Load())  # warm
            for _ in range(rounds):
                for (name, clients), load in loads.items():
                    ask_for(addresses[name], clients, seconds, load)
        finally:
            for process in servers.values():
                process.terminate()
            for process in servers.values():
                process.wait()
    reports = {f"{name}, {clients} clients": load.report() for (name, clients), load in loads.items()}
    batched, single = reports[f"batched, {many} clients"], reports[f"one by one, {many} clients"]
    result: dict[str, Any] = {
        "decisions_per_s": batched["decisions_per_s"],
        "batching_speedup": batched["decisions_per_s"] / single["decisions_per_s"],
        "http_overhead_ms": reports[f"batched, {few} clients"]["overhead_ms"],
        "preset": str(settings.checkpoint or settings.preset),
        "max_batch": settings.max_batch,
        "batch_wait_ms": settings.batch_wait_ms,
        "serve": settings.serve,
        "machine": machine(),
        "commit": git_commit(),
    }
    for (name, clients), load in loads.items():
        case = f"{name.replace(' ', '_')}_{clients}"
        result |= {f"{case}.{key}": value for key, value in load.report().items()}
    print(f"{'':24} decisions/s   p50 ms   p90 ms   http ms   mean batch")
    for name, report in reports.items():
        print(
            f"{name:24} {report['decisions_per_s']:11.1f} {report['p50_ms']:8.1f} {report['p90_ms']:8.1f} "
            f"{report['overhead_ms']:9.1f} {report['mean_batch']:12.1f}"
        )
    for name in ("decisions_per_s", "batching_speedup", "http_overhead_ms"):
        print(f"{name:24} {result[name]:11.3g}")
    if settings.json is not None:
        write_json(settings.json, result)


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(ROOT))
    run_job(main, Settings)
