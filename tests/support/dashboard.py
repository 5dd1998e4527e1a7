"""The Grafana dashboard that the project ships."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parent.parent.parent / "cluster/grafana/avavla.json"
METRIC = re.compile(r"\bray_avavla_\w+")


def dashboard() -> dict[str, Any]:
    return json.loads(PLACE.read_text(encoding="utf-8"))


def drawn(panel: dict[str, Any]) -> list[str]:
    """Expressions of a panel; rows have none."""
    return [target["expr"] for target in panel.get("targets", [])]


def metrics() -> set[str]:
    """Names, as Prometheus knows them, of all metrics that are drawn or chosen from."""
    board = dashboard()
    texts = [expression for panel in board["panels"] for expression in drawn(panel)]
    texts += [variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return {name for text in texts for name in METRIC.findall(text)}
