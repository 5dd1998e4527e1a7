"""The table of the thresholds: its numbers, and that each format can be read by what it is for."""

from __future__ import annotations

import csv
import io
import math

import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.results import summarise
from avavla_ray.evaluation.threshold_table import (
    comma_separated,
    escaped,
    latex,
    markdown,
    threshold_rows,
    write_threshold_tables,
)


def result(setting, suite, wins, steps, milliseconds, label="bc"):
    records = [
        EpisodeRecord(setting.label, 0, state, won, 8, [steps] * 2, [milliseconds, 2 * milliseconds])
        for state, won in enumerate(wins)
    ]
    return summarise(setting, records, {0: "x"}, label=label, suite=suite)


LOW, HIGH, FIXED = ExitSetting(0.3), ExitSetting(0.95), ExitSetting(fixed_depth=5)
RESULTS = [
    result(FIXED, "libero_goal", [True] * 10, 5, 40.0),
    result(HIGH, "libero_goal", [True] * 5 + [False] * 5, 4, 30.0),
    result(LOW, "libero_goal", [False] * 10, 1, 10.0),
    result(LOW, "libero_object", [True] * 10, 2, 20.0),
    result(HIGH, "libero_object", [True] * 10, 4, 30.0),
]


def test_markdown_is_the_papers_table():
    lines = markdown(threshold_rows(RESULTS)).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[0], *cells[2:]] == [
        ["exit threshold", "steps", "mean ms", "P90 ms", "libero_goal %", "libero_object %", "mean %"],
        ["0.30", "1.50", "22.5", "30.0", "0.0 (0.0-27.8)", "100.0 (72.2-100.0)", "50.0 (36.1-63.9)"],
        ["0.95", "4.00", "45.0", "60.0", "50.0 (23.7-76.3)", "100.0 (72.2-100.0)", "75.0 (55.9-88.2)"],
        ["fixed depth 5", "-", "-", "-", "100.0 (72.2-100.0)", "-", "-"],
    ]


def test_the_mean_of_one_suite_is_its_own_and_not_shown_twice():
    rows = threshold_rows(RESULTS[:3])
    assert [row.title for row in rows] == ["0.30", "0.95", "fixed depth 5"]
    for row, wins in zip(rows, (0, 5, 10), strict=True):
        assert (row.mean.low, row.mean.high) == pytest.approx(wilson(wins, 10))
        assert row.mean == row.success["libero_goal"]
    assert "mean %" not in markdown(rows)


def test_the_interval_of_the_mean_shrinks_as_independent_ones_do():
    (row,) = threshold_rows([result(LOW, f"suite{i}", [True, False] * 50, 1, 1.0) for i in range(4)])
    alone = wilson(50, 100)
    assert row.mean.high - row.mean.low == pytest.approx((alone[1] - alone[0]) / math.sqrt(4))


def test_csv_has_every_number_in_full():
    rows = list(csv.DictReader(io.StringIO(comma_separated(threshold_rows(RESULTS)))))
    assert [row["exit_setting"] for row in rows] == ["0.30", "0.95", "fixed depth 5"]
    assert float(rows[1]["libero_goal_low"]) == wilson(5, 10)[0]
    assert (rows[1]["libero_goal_successes"], rows[1]["libero_goal_episodes"]) == ("5", "10")
    assert float(rows[0]["mean_success"]) == 0.5
    assert rows[2]["libero_object_success"] == rows[2]["mean_success"] == rows[2]["ms_mean"] == ""


def test_latex_is_balanced_and_escaped():
    text = latex(threshold_rows(RESULTS), "100 % of libero_goal & more")
    assert r"\caption{100 \% of libero\_goal \& more}" in text
    assert r"0.95 & 4.00 & 45.0 & 60.0 & 50.0 {\scriptsize (23.7--76.3)}" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert {line.replace(r"\&", "").count("&") for line in lines} == {6}
    assert r"\begin{tabular}{lrrrrrr}" in text
    plain = text
    for escape in (r"\{", r"\}", r"\%", r"\_", r"\&"):
        plain = plain.replace(escape, "")
    assert plain.count("{") == plain.count("}")
    assert not set("%_#$~^") & set(plain)
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


def test_every_special_letter_is_escaped():
    assert escaped("a\\b{c}~^") == r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}"


def test_checkpoints_are_named_when_there_are_several(tmp_path):
    results = [*RESULTS, result(LOW, "libero_goal", [True], 1, 1.0, label="ppo")]
    (path, *_) = write_threshold_tables(tmp_path, results)
    assert {line.split("|")[1].strip() for line in path.read_text().splitlines()[2:]} == {"bc", "ppo"}
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "threshold_table.csv", "threshold_table.md", "threshold_table.tex",
    ]  # fmt: skip


def test_two_results_of_the_same_are_refused():
    with pytest.raises(InputError, match="two results of bc at 0.30 on libero_goal"):
        threshold_rows([*RESULTS, RESULTS[2]])
