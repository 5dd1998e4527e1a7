"""A link to MLflow's chart page with the axes already chosen: success rate over latent steps, and over milliseconds.

The compare page's scatter tab opens on the first parameter and the first metric by name, and takes no others from its
address. The chart page of an experiment does: what its "share" button keeps in a tag of the experiment can be written
there beforehand. The format is that of MLflow 3.17, to which the installation is held; a test opens such a link.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from avavla_ray.tracked_run import client_of
from avavla_ray.tracking import PARENT

TAG = "mlflow.sharedViewState."
LONGEST = 5000  # characters that MLflow keeps of an experiment's tag
SUCCESS, COSTS = "success_rate", ("mean_latent_steps", "ms_mean")


def of_sweep(run_id: str) -> str:
    """MLflow's search for the trials of a sweep, also of those that are still to come."""
    return f"tags.`{PARENT}` = '{run_id}' AND tags.kind = 'evaluation'"


def of_runs(run_ids: Sequence[str]) -> str:
    """MLflow's search for these runs."""
    names = ", ".join(f"'{run_id}'" for run_id in sorted(run_ids))
    return f"attributes.run_id IN ({names})"


def prepare_view(uri: str, experiment_id: str, search: str, server: str = "http://127.0.0.1:5000") -> str | None:
    """Keep the view with the experiment, and give the link to it; the same search is kept once.

    Args:
        search: of the runs to show (`of_sweep`, `of_runs`).
        server: where `mlflow ui` answers.

    Returns:
        the link; None of a search that is too long to be kept, as of a hundred runs.
    """
    state = json.dumps(_state(search), separators=(",", ":"))
    if len(state) > LONGEST:
        return None
    key = hashlib.sha256(state.encode()).hexdigest()[:16]
    client_of(uri).set_experiment_tag(experiment_id, TAG + key, state)
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={key}&compareRunsMode=CHART"


def _state(search: str) -> dict[str, Any]:
    section = "costs"
    charts = [
        {
            "uuid": f"{SUCCESS}_over_{cost}", "type": "SCATTER", "metricSectionId": section, "deleted": False,
            "isGenerated": False, "runsCountToCompare": 1000,
            "xaxis": {"key": cost, "type": "METRIC"}, "yaxis": {"key": SUCCESS, "type": "METRIC"},
        }
        for cost in COSTS
    ]  # fmt: skip
    return {
        "searchFilter": search,
        # By a metric: in the order of time, trials would be folded away below their sweep and not be drawn.
        "orderByKey": f"metrics.`{COSTS[0]}`", "orderByAsc": True,
        "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "compareRunCharts": charts,
        "compareRunSections": [
            {
                "uuid": section, "name": "What thinking less costs", "display": True, "isReordered": False,
                "deleted": False, "isGenerated": False, "columns": 2, "cardHeight": 440,
            }
        ],
        "isAccordionReordered": False, "useGroupedValuesInCharts": False, "autoRefreshEnabled": False,
        "hideEmptyCharts": False, "runsHiddenMode": "SHOWALL", "viewMaximized": False, "runListHidden": True,
    }  # fmt: skip
