"""Sections of expert reports in a Markdown file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.experts.report import ReportSettings, TaskReport, main, run_task, summary
from avavla_ray.simulators.experts.tables import replace_section, rows_of, section

GOOD = TaskReport(0, "lift it", steps=[10, 30])
MIXED = TaskReport(1, "push it", steps=[20], failures=["1 (reach)"])
NONE = TaskReport(2, "weigh it", no_expert="no scripted expert for scales")


def test_the_summary_counts_what_was_tried_and_what_has_no_expert() -> None:
    assert summary([GOOD, MIXED, NONE]) == "3/4 = 75.0%, 20 steps on average, no expert for 1 of 3 tasks"
    assert summary([NONE]) == "no expert for 1 of 1 tasks"


def test_rows_name_successes_steps_failures_and_missing_experts() -> None:
    text = section("things, drawn starts", "things", [GOOD, MIXED, NONE], {}, 2)
    assert "2 episodes a task: 3/4 = 75.0%, no expert for 1 of 3 tasks." in text
    assert "| 0 | 2/2 | 10-30 | lift it |  |" in text
    assert "| 1 | 1/2 | 20-20 | push it | failed: 1 (reach) |" in text
    assert "| 2 | no expert | - | weigh it | no scripted expert for scales |" in text


def test_a_section_replaces_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "experts.md"
    path.write_text("# Experts\n")
    for suite, reports in (("things", [GOOD]), ("more", [NONE]), ("things", [MIXED])):
        replace_section(path, suite, section(suite, suite, reports, {}, 2))
    text = path.read_text()
    assert text.startswith("# Experts\n")
    assert "lift it" not in text
    assert text.index("push it") < text.index("weigh it")
    assert text.count("<!-- report things -->") == text.count("<!-- end more -->") == 1


def test_some_tasks_can_be_run_again(tmp_path: Path) -> None:
    path = tmp_path / "experts.md"
    replace_section(path, "things", section("things", "things", [GOOD, MIXED, NONE], {}, 2))
    better = TaskReport(1, "push it", steps=[20, 22])
    text = section("things", "things", [better], rows_of(path, "things"), 2)
    assert "4/4 = 100.0%" in text
    assert text.index("lift it") < text.index("push it") < text.index("weigh it")
    assert rows_of(path, "other") == {}


CRAMPED = ReportSettings(suite="tests.support.half_taught:CrampedSimulator", episodes=3)


def test_a_simulator_that_breaks_costs_its_episode_and_no_more() -> None:
    report = run_task(CRAMPED, 0)
    assert report.failures == ["1 (simulator broke: physics)"]
    assert len(report.steps) == 2
    assert report.no_expert == ""


def test_only_a_missing_expert_is_reported_as_such() -> None:
    assert run_task(CRAMPED, 1).no_expert == "no scripted expert for what is on the left"
    with pytest.raises(InputError, match="noise -1 is negative"):
        run_task(replace(CRAMPED, noise=-1), 0)


def test_assets_are_named_only_where_a_suite_has_any(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(replace(CRAMPED, markdown=tmp_path / "experts.md"))
    assert f"### {CRAMPED.suite}, published initial states\n" in (tmp_path / "experts.md").read_text()
    assert "assets" not in capsys.readouterr().out
