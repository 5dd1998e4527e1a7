"""MLflow runs: opening the store, tags that say what a run is, metrics, files, and the link to the compare page."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.files import write_json
from avavla_ray.tracked_run import Run, attach, client_of, without_password

EXPERIMENT = "avavla"
DEFAULT_STORE = "runs/mlflow.db"
PENDING = "mlflow_pending.jsonl"  # in a run's folder: what its store has not taken yet
NOTE = "mlflow.json"  # beside it: which MLflow run is meant
PARENT = "mlflow.parentRunId"  # MLflow's own name of the tag


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
    output: Path | None = None,
    parent: str | None = None,
) -> Iterator[Run]:
    """Open a run, close it as FINISHED, as KILLED when the process is told to leave, or as FAILED on an exception.

    Args:
        kind: "bc", "ppo", "evaluation", ...: becomes the tag "kind".
        run_key: identity of the work (a job's --run-id).
        resume: continue the newest run of the same key and kind, if there is one, instead of opening another.
        output: folder of a long run, which the store must not end: what the store does not take waits there
            (PENDING). It also notes which MLflow run is meant, so that `resume` needs no store.
        parent: `run_id` of the run that this one is a part of, as a trial is of its sweep: MLflow shows it below that.

    Raises:
        InputError: the store can't be opened.
    """
    uri = uri or default_uri()
    check_store(uri)
    run = _again(output, uri) if resume and output is not None else None
    if run is None:
        run = _open(name, kind, uri, run_key, resume, experiment, output, params)
    if output is not None:
        write_json(output / NOTE, {"uri": without_password(uri), "run": run.run_id, "experiment": run.experiment_id})
    own = {"run_key": run_key, PARENT: parent}
    run.set_tags({"kind": kind, **{name: value for name, value in own.items() if value}, **(tags or {})})
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.set_status(status)
        run.close(grace=2.0 if status == "KILLED" else 10.0)  # whoever tells a process to end gives it little time


def _open(
    name: str, kind: str, uri: str, run_key: str | None, resume: bool, experiment: str, output: Path | None,
    params: Mapping[str, Any] | None,
) -> Run:  # fmt: skip
    """The run to log to, found or made in the store."""
    pending = None if output is None else output / PENDING
    try:
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            experiment_id = found.experiment_id
        elif uri.startswith("sqlite:///"):
            artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
            experiment_id = client.create_experiment(experiment, artifact_location=artifacts.absolute().as_uri())
        else:
            experiment_id = client.create_experiment(experiment)
        if run_key is not None and resume:
            earlier = client.search_runs([experiment_id], f"tags.run_key = '{run_key}' and tags.kind = '{kind}'")
            if earlier:
                run = Run(earlier[0].info.run_id, experiment_id, uri, pending)
                run.set_status("RUNNING")
                return run
        run = Run(client.create_run(experiment_id, run_name=name).info.run_id, experiment_id, uri, pending)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"MLflow store {without_password(uri)} can't be opened ({type(error).__name__}: {error})"
        ) from error
    if params:
        run.log_params(params)
    return run


def noted_run(output: Path) -> dict[str, str] | None:
    """Which MLflow run the run in `output` logs to."""
    path = output / NOTE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _again(output: Path, uri: str) -> Run | None:
    """The run that `output` notes, whether the store answers or not."""
    noted = noted_run(output)
    if noted is None:
        return None
    if not goes_on_in(noted, uri, f"the run in {output} logs"):
        return None
    run = Run(noted["run"], noted["experiment"], uri, output / PENDING)
    run.set_status("RUNNING")
    return run


def goes_on_in(noted: Mapping[str, str], uri: str, what: str) -> bool:
    """Whether the noted run goes on in a store: in the noted one, or where that has been restored, as a new cluster's
    head does at an address of its own. False where a server's store lacks the run, as a backup does that is older: it
    is to be opened anew there.

    Args:
        noted: by `noted_run`. what: logs there, for the message.

    Raises:
        InputError: another store does not answer, or is a file without that run.
    """
    shown = without_password(uri)
    if noted["uri"] == shown:
        return True
    advice = f"{what} to MLflow at {noted['uri']}: resume it with that --tracking-uri, or where its store is now"
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # asking would make it
        raise InputError(f"{advice}; {shown} is not there")
    try:
        client_of(uri).get_run(noted["run"])
    except Exception as error:  # whatever the store, its database or the way there has to say
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" and not uri.startswith("sqlite"):
            print(f"MLflow's store at {shown} lacks the run that {noted['uri']} had: another one is opened", flush=True)
            return False
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{advice}; {shown} does not show that run ({reason})") from error
    print(f"MLflow's store has moved from {noted['uri']} to {shown}: it has the run {noted['run']}", flush=True)
    return True


def find_runs(
    *, uri: str | None = None, kind: str, filters: str = "", experiment: str = EXPERIMENT, limit: int = 1000
) -> list[Any]:
    """Runs of a kind, newest first, as MLflow entities.

    Raises:
        InputError: no such experiment.
    """
    return _search(uri, f"tags.kind = '{kind}'" + (f" and {filters}" if filters else ""), experiment, limit)


def find_sweep(key: str, *, uri: str | None = None, experiment: str = EXPERIMENT) -> Any:
    """The newest run of a sweep, by the sweep's --run-id or the id of its MLflow run.

    Raises:
        InputError: no such sweep, or no such experiment.
    """
    runs = _search(uri, "tags.kind ILIKE 'sweep%'", experiment, 1000)
    for run in runs:
        if key in (run.info.run_id, run.data.tags.get("run_key")):
            return run
    known = ", ".join(dict.fromkeys(run.data.tags.get("run_key", run.info.run_id) for run in runs)) or "none"
    raise InputError(f"no sweep {key!r} in {without_password(uri or default_uri())}; known: {known}")


def _search(uri: str | None, clause: str, experiment: str, limit: int) -> list[Any]:
    uri = uri or default_uri()
    check_store(uri)
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise InputError(f"{without_password(uri)} holds no experiment {experiment!r}: run jobs/evaluate.py first")
    runs: list[Any] = []
    token = None
    while len(runs) < limit:
        page = client.search_runs(
            [found.experiment_id], clause, max_results=min(limit - len(runs), 1000), page_token=token
        )
        runs += page
        token = page.token
        if not token:
            break
    return runs


def register_checkpoint(uri: str | None, run: Run | str, folder: Path, name: str) -> None:
    """Register a checkpoint as the newest version of the model `name`, its files kept with a run.

    Args:
        run: open, or the id of one that is closed.

    Raises:
        InputError: no whole checkpoint, or a name that MLflow's addresses can't hold.
    """
    (attach(uri or default_uri(), run) if isinstance(run, str) else run).register_checkpoint(folder, name)


def children_of(run_id: str, *, uri: str | None = None, experiment: str = EXPERIMENT) -> list[Any]:
    """The runs that a run is the parent of, oldest first, whatever their kind."""
    return list(reversed(_search(uri, f"tags.`{PARENT}` = '{run_id}'", experiment, 5000)))


def compare_link(run_ids: list[str], experiment_id: str, server: str = "http://127.0.0.1:5000") -> str:
    """MLflow's own compare page for these runs, as served by `mlflow ui`."""
    runs = urllib.parse.quote(json.dumps(run_ids, separators=(",", ":")))
    experiments = urllib.parse.quote(json.dumps([experiment_id]))
    return f"{server}/#/compare-runs?runs={runs}&experiments={experiments}"
