"""MLflow's own pages show a sweep's trials: success rate over mean latent steps, in a real browser."""

from __future__ import annotations

import pytest

from avavla_ray.compare_view import of_sweep, prepare_view
from avavla_ray.tracking import children_of, compare_link
from tests.support.compare_page import browser_page, missing, mlflow_server, open_scatter, open_view
from tests.support.tracked_sweep import log_sweep

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.mark.timeout(280)
def test_the_compare_page_and_the_prepared_view_show_every_trial_of_a_sweep(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sweep, results = log_sweep(uri, tmp_path)
    runs = children_of(sweep, uri=uri)
    picture = tmp_path / "compare.png"
    with mlflow_server(uri, tmp_path) as address, browser_page() as page:
        link = compare_link([run.info.run_id for run in runs], runs[0].info.experiment_id, address)
        shown = open_scatter(page, link, "mean_latent_steps", "success_rate", picture)
        view = prepare_view(uri, runs[0].info.experiment_id, of_sweep(sweep), address)
        prepared = open_view(page, str(view), tmp_path / "view.png")
    assert shown.axes == ("mean_latent_steps", "success_rate")
    expected = {
        cost: sorted((result[cost], result["success_rate"]) for result in results)
        for cost in ("mean_latent_steps", "ms_mean")
    }
    assert sorted(shown.points) == [pytest.approx(point) for point in expected["mean_latent_steps"]]
    for result in results:
        assert any(f"PPO {result['title']}" in name for name in shown.names)
    assert shown.drawn > 40 * len(results), "the points are in the page's data, but not drawn"
    assert [plot.axes for plot in prepared] == [(cost, "success_rate") for cost in expected]
    for plot, points in zip(prepared, expected.values(), strict=True):
        assert sorted(plot.points) == [pytest.approx(point) for point in points]
