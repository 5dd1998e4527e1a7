"""The dashboard as Grafana would read it; that what it draws is exported is tests/integration/test_ppo_metrics.py's."""

from __future__ import annotations

import itertools

from actors.gauges import COUNTERS, GAUGES
from tests.support.dashboard import dashboard, drawn, metrics


def test_panels_have_their_own_numbers_and_places_and_say_what_they_show() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_curve_is_of_the_chosen_run_and_source_and_has_a_name() -> None:
    board = dashboard()
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "run"]
    for panel in board["panels"]:
        assert len(set(map(str, (target["refId"] for target in panel.get("targets", []))))) == len(drawn(panel))
        for target in panel.get("targets", []):
            assert target["expr"].count("ray_avavla_") == target["expr"].count('{run=~"$run"}')
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"].startswith("{{")


def test_everything_that_is_shown_is_drawn() -> None:
    shown = {f"ray_{name}" for name, _ in GAUGES.values()} | {f"ray_{name}_total" for name, _ in COUNTERS.values()}
    shown |= {"ray_avavla_task_success_rate", "ray_avavla_restarts_total"}
    shown |= {f"ray_avavla_lag_{part}" for part in ("bucket", "sum", "count")}
    assert metrics() == shown
