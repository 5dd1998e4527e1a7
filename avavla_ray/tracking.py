"""MLflow runs: opening the store, tags that say what a run is, metrics, files, and the link to the compare page."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError

EXPERIMENT = "avavla"
DEFAULT_STORE = "runs/mlflow.db"


def default_uri() -> str:
    """MLFLOW_TRACKING_URI, else an SQLite file under runs/ of the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(DEFAULT_STORE).absolute()}"


def absolute_uri(uri: str) -> str:
    """The same store, however another process's working directory may be."""
    prefix = "sqlite:///"
    return prefix + str(Path(uri.removeprefix(prefix)).absolute()) if uri.startswith(prefix) else uri


def check_store(uri: str) -> None:
    """Refuse a store that can't be written, before any work is done.

    Raises:
        InputError: the SQLite file's folder is not writable, or the URI is a plain folder (MLflow dropped those).
    """
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writable = os.access(path if path.exists() else path.parent, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            raise InputError(f"MLflow's folder {path.parent} is not writable: choose another --tracking-uri")
    elif "://" not in uri or uri.startswith("file:"):
        raise InputError(f"MLflow keeps no runs in plain folders ({uri}): use --tracking-uri sqlite:///PATH.db")


class Run:
    """An open MLflow run. Metric names may contain letters, digits, "_", "-", ".", "/" and spaces."""

    def __init__(self, client: Any, run_id: str, experiment_id: str, uri: str) -> None:
        self._client = client
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.uri = uri

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at `step`.

        Raises:
            InputError: one is not finite; a plot would only show a gap where it should tell what went wrong.
        """
        from mlflow.entities import Metric

        for name, value in metrics.items():
            if not math.isfinite(value):
                raise InputError(f"metric {name} is {value} at step {step}: training has diverged, lower its rate")
        now = int(time.time() * 1000)
        entries = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        if entries:
            self._client.log_batch(self.run_id, metrics=entries)

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:6000]) for name, value in params.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(self.run_id, params=entries[start : start + 100])

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, value if isinstance(value, str) else json.dumps(value))

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        self._client.log_artifact(self.run_id, str(path), folder)


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise InputError("mlflow is not installed: pip install 'avavla_ray[cluster]'") from error
    return MlflowClient(tracking_uri=uri)


def attach(uri: str, run_id: str) -> Run:
    """A run that another process opened with `track` and will close: for workers that log to it."""
    client = _client(uri)
    return Run(client, run_id, client.get_run(run_id).info.experiment_id, uri)


@contextlib.contextmanager
def track(
    name: str,
    *,
    kind: str,
    uri: str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    run_key: str | None = None,
    resume: bool = False,
    experiment: str = EXPERIMENT,
) -> Iterator[Run]:
    """Open a run, close it as FINISHED, or as FAILED on an exception.

    Args:
        kind: "bc", "ppo", "evaluation", ...: becomes the tag "kind".
        run_key: identity of the work (a job's --run-id).
        resume: continue the newest run of the same key and kind, if there is one, instead of opening another.

    Raises:
        InputError: the store can't be opened.
    """
    uri = uri or default_uri()
    check_store(uri)
    client = _client(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            experiment_id = found.experiment_id
        elif uri.startswith("sqlite:///"):
            artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
            experiment_id = client.create_experiment(experiment, artifact_location=artifacts.absolute().as_uri())
        else:
            experiment_id = client.create_experiment(experiment)
    except Exception as error:
        raise InputError(f"MLflow store {uri} can't be opened ({type(error).__name__}: {error})") from error
    earlier = []
    if run_key is not None and resume:
        earlier = client.search_runs([experiment_id], f"tags.run_key = '{run_key}' and tags.kind = '{kind}'")
    if earlier:
        run_id = earlier[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    else:
        run_id = client.create_run(experiment_id, run_name=name).info.run_id
    run = Run(client, run_id, experiment_id, uri)
    run.set_tags({"kind": kind, **({"run_key": run_key} if run_key else {}), **(tags or {})})
    if params and not earlier:
        run.log_params(params)
    try:
        yield run
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def find_runs(
    *, uri: str | None = None, kind: str, filters: str = "", experiment: str = EXPERIMENT, limit: int = 1000
) -> list[Any]:
    """Runs of a kind, newest first, as MLflow entities.

    Raises:
        InputError: no such experiment.
    """
    uri = uri or default_uri()
    check_store(uri)
    client = _client(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise InputError(f"{uri} holds no experiment {experiment!r}: run jobs/evaluate.py first")
    clause = f"tags.kind = '{kind}'" + (f" and {filters}" if filters else "")
    return list(client.search_runs([found.experiment_id], clause, max_results=limit))


def compare_link(run_ids: list[str], experiment_id: str, server: str = "http://127.0.0.1:5000") -> str:
    """MLflow's own compare page for these runs, as served by `mlflow ui`."""
    runs = urllib.parse.quote(json.dumps(run_ids, separators=(",", ":")))
    experiments = urllib.parse.quote(json.dumps([experiment_id]))
    return f"{server}/#/compare-runs?runs={runs}&experiments={experiments}"
