"""MLflow's own compare page shows a sweep's trials: success rate over mean latent steps, in a real browser."""

from __future__ import annotations

import pytest

from avavla_ray.tracking import children_of, compare_link
from tests.support.compare_page import browser_page, missing, mlflow_server, open_scatter
from tests.support.tracked_sweep import log_sweep

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.mark.timeout(180)
def test_the_compare_page_shows_every_trial_of_a_sweep(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sweep, results = log_sweep(uri, tmp_path)
    runs = children_of(sweep, uri=uri)
    picture = tmp_path / "compare.png"
    with mlflow_server(uri, tmp_path) as address, browser_page() as page:
        link = compare_link([run.info.run_id for run in runs], runs[0].info.experiment_id, address)
        shown = open_scatter(page, link, "mean_latent_steps", "success_rate", picture)
    assert shown.axes == ("mean_latent_steps", "success_rate")
    expected = [(result["mean_latent_steps"], result["success_rate"]) for result in results]
    assert sorted(shown.points) == [pytest.approx(point) for point in sorted(expected)]
    for result in results:
        assert any(f"PPO {result['title']}" in name for name in shown.names)
    assert shown.drawn > 40 * len(results), "the points are in the page's data, but not drawn"
