"""One MLflow run that is open: numbers, tags and files for it, sent at once or as soon as its store answers."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.model_registry import check_checkpoint, register
from avavla_ray.outbox import Entry, NotTaken, Outbox

# What a store says that has no registry, or none for us: asking again changes nothing.
REFUSED = ("FEATURE_DISABLED", "ENDPOINT_NOT_FOUND", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")


def without_password(uri: str) -> str:
    """The URI as it may be printed and kept."""
    parts = urllib.parse.urlsplit(uri)
    return uri if parts.username is None else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def client_of(uri: str) -> Any:
    """MLflow's client of a store; nothing is asked of that yet, unless it is an SQLite file.

    Raises:
        InputError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Its own patience, 7 repeats of 120 s, is that of a notebook: what may wait is sent again by whoever sends it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise InputError("mlflow is not installed: pip install 'avavla_ray[cluster]'") from error
    return MlflowClient(tracking_uri=uri)


class Run:
    """An open MLflow run. Metric names may contain letters, digits, "_", "-", ".", "/" and spaces.

    Args:
        pending: file in which everything is kept until the store has taken it, sent by a thread: no method waits for
            the store then, or fails because of it. None asks the store at once.
    """

    def __init__(self, run_id: str, experiment_id: str, uri: str, pending: Path | None = None) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.uri = uri
        self._client: Any = None
        self._outbox = None if pending is None else Outbox(pending, self._deliver, f"MLflow at {without_password(uri)}")

    @property
    def waiting(self) -> int:
        """Things that the store has not taken yet."""
        return 0 if self._outbox is None else self._outbox.waiting

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at `step`.

        Raises:
            InputError: one is not finite; a plot would only show a gap where it should tell what went wrong.
        """
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise InputError(f"metric {name} is {value} at step {step}: training has diverged, lower its rate")
        if metrics:
            self._put(op="metrics", step=step, values={name: float(value) for name, value in metrics.items()})

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._put(op="params", values={name: str(value)[:6000] for name, value in params.items()})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}
        self._put(op="tags", values=texts)

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        """Keep a copy of a file with the run."""
        self._put(op="file", path=str(Path(path).absolute()), folder=folder)

    def register_checkpoint(self, folder: str | Path, name: str) -> None:
        """Keep a copy of a checkpoint with the run, as the newest version of the registered model `name`.

        Raises:
            InputError: no whole checkpoint, or a name that MLflow's addresses can't hold.
        """
        digest = check_checkpoint(folder, name)
        self._put(op="checkpoint", path=str(Path(folder).absolute()), name=name, digest=digest)

    def set_status(self, status: str) -> None:
        """RUNNING, or how it ended: FINISHED, FAILED or KILLED."""
        self._put(op="status", status=status)

    def close(self, grace: float = 10.0) -> None:
        """Give the store `grace` seconds to take what waits, and say where the rest is."""
        if self._outbox is not None and (left := self._outbox.close(grace)):
            folder = self._outbox.path.parent
            print(
                f"{left} entries for MLflow at {without_password(self.uri)} wait in {self._outbox.path}: send them "
                f"with 'python -m avavla_ray.send_metrics {folder}' when it answers (--resume does it too)",
                flush=True,
            )

    def _put(self, **entry: Any) -> None:
        # The time is part of what makes a number the same one when it is sent twice.
        entry["time"] = int(time.time() * 1000)
        if self._outbox is not None:
            self._outbox.put(entry)
        else:
            self.perform([entry])

    def _deliver(self, entries: list[Entry]) -> None:
        try:
            self.perform(entries)
        except Exception as error:  # MLflow's, its database's, or of whatever holds the artifacts: the rest waits
            self._client = None
            raise NotTaken((str(error).strip() or type(error).__name__).splitlines()[0]) from error

    def perform(self, entries: list[Entry]) -> None:
        """Tell the store at once; telling it twice changes nothing."""
        from mlflow.entities import Metric, Param

        if self._client is None:
            self._client = client_of(self.uri)
        for op, group in itertools.groupby(entries, key=lambda entry: entry["op"]):
            if op == "metrics":
                metrics = [
                    Metric(name, value, entry["time"], entry["step"])
                    for entry in group for name, value in entry["values"].items()
                ]  # fmt: skip
                for start in range(0, len(metrics), 500):  # MLflow takes 1000, but not always in time
                    self._client.log_batch(self.run_id, metrics=metrics[start : start + 500])
                continue
            for entry in group:
                if op == "params":
                    params = [Param(name, value) for name, value in entry["values"].items()]
                    for start in range(0, len(params), 100):
                        self._client.log_batch(self.run_id, params=params[start : start + 100])
                elif op == "tags":
                    for name, value in entry["values"].items():
                        self._client.set_tag(self.run_id, name, value)
                elif op == "file" and Path(entry["path"]).exists():  # it may have been removed while it waited
                    self._client.log_artifact(self.run_id, entry["path"], entry["folder"])
                elif op == "checkpoint":
                    self._register(entry)
                elif op == "status" and entry["status"] == "RUNNING":
                    self._client.update_run(self.run_id, status="RUNNING")
                elif op == "status":
                    self._client.set_terminated(self.run_id, entry["status"], end_time=entry["time"])

    def _register(self, entry: Entry) -> None:
        """What can't be registered for good, now or later, must not keep all that follows from being sent."""
        from mlflow.exceptions import MlflowException

        try:
            register(self._client, self.run_id, Path(entry["path"]), entry["name"], entry.get("digest"))
        except InputError as error:
            print(f"{entry['name']} is not registered: {error}", flush=True)
        except MlflowException as error:
            if error.error_code not in REFUSED:
                raise
            print(f"{entry['name']} is not registered, the store refuses it: {error.message}", flush=True)


def attach(uri: str, run_id: str, pending: Path | None = None) -> Run:
    """A run that another process opened with `track` and will close: for workers that log to it."""
    return Run(run_id, "", uri, pending)
