"""results/: rows of other proofs stay, tables are made from the summary, and no file names a machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.proofs import private
from avavla_ray.evaluation.proofs.catalogue import PROOFS
from avavla_ray.evaluation.proofs.private import check_public, cleaned
from avavla_ray.evaluation.proofs.publish import check_place, publish, published
from avavla_ray.evaluation.proofs.result import ROWS, write_result
from avavla_ray.evaluation.proofs.table import (
    BEGIN,
    END,
    NOT_RUN,
    SUMMARY,
    all_tables,
    read_rows,
    split_readme,
    write_tables,
)
from avavla_ray.files import write_json
from tests.support.proofs import ASKED, COMMAND, PROOF, finished, rows_of

ROOT = Path(__file__).resolve().parents[2]


def test_publishing_replaces_the_rows_of_its_proof_and_seed_only(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "README.md").write_text(f"# Ours\n\n{BEGIN}\nyesterday\n{END}\n\nThe end.\n")
    old = {**rows_of(tmp_path / "old")["PPO"], "success_rate": 0.111, "wall_minutes": 777.0}
    others = [{**old, "proof": "bc_object", "name": "bc_object/BC"}, {**old, "seed": 2}, old]
    write_json(results / SUMMARY, others)
    write_json(results / f"bc_object-3/{ROWS}", others[:1])
    write_json(results / f"gain-2/{ROWS}", others[1:2])
    result = write_result(PROOF, finished(tmp_path / "gain-3"), command=COMMAND, asked=ASKED)
    assert publish(result, results) == results / "gain-3"
    rows = read_rows(results / "summary.json")
    kept = [(each["proof"], each["seed"], each["row"], each["success_rate"]) for each in rows]
    assert kept == [
        ("bc_object", 3, "PPO", 0.111), ("gain", 2, "PPO", 0.111), ("gain", 3, "BC", 0.3), ("gain", 3, "PPO", 0.9),
    ]  # fmt: skip
    text = (results / "README.md").read_text()
    assert text.startswith("# Ours\n")
    assert text.endswith("\n\nThe end.\n")
    assert "yesterday" not in text
    assert "![gain-3/ppo/learning_curve.png](gain-3/ppo/learning_curve.png)" in text
    assert "+60.0 points" in text
    publish(result, results)
    assert (read_rows(results / "summary.json"), (results / "README.md").read_text()) == (rows, text)


def test_rows_that_the_summary_has_lost_come_back_from_their_folders(tmp_path: Path) -> None:
    results = tmp_path / "results"
    made = rows_of(tmp_path).values()
    for seed in (3, 4):
        rows = [{**row, "seed": seed} for row in made]
        write_json(results / f"gain-{seed}/{ROWS}", rows)
    write_json(results / SUMMARY, read_rows(results / f"gain-4/{ROWS}"))
    write_json(results / f".gain-3.0a1b2c3d.old/{ROWS}", rows)  # a publication was killed here
    found = published(results)
    assert [row["seed"] for row in found] == [3, 3, 4, 4]
    assert [row for row in found if row["seed"] == 4] == read_rows(results / SUMMARY)


def test_a_proof_that_nobody_has_run_says_so_and_a_missed_target_is_not_hidden(tmp_path: Path) -> None:
    text = all_tables([], tmp_path)
    assert text.count(f"`: {NOT_RUN}.") == len(PROOFS)
    missed = rows_of(tmp_path, before=26, after=32)["PPO"]
    assert all_tables([missed], tmp_path).count("**missed**") == 2 * len(missed["targets"])


def test_the_tables_of_the_repository_are_those_of_its_summary() -> None:
    """Otherwise: python -m avavla_ray.evaluation.proofs.table results"""
    results = ROOT / "results"
    head, tail = split_readme(results / "README.md")
    assert read_rows(results / "summary.json") == published(results)
    tables = all_tables(read_rows(results / "summary.json"), results)
    assert (results / "README.md").read_text() == f"{head}{BEGIN}\n\n{tables}\n{END}{tail}"


def test_the_repository_publishes_no_path_of_a_machine() -> None:
    for path in (path for path in (ROOT / "results").rglob("*") if path.is_file()):
        check_public(path)


def test_results_without_a_place_for_tables_are_refused(tmp_path: Path) -> None:
    check_place(tmp_path / "not there yet")
    (tmp_path / "README.md").write_text("# Ours\n")
    with pytest.raises(InputError, match="lacks the lines <!-- proofs -->"):
        check_place(tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / "gain-3").mkdir()
    (tmp_path / "gain-3" / ROWS).write_text('{"proof": 1}')
    with pytest.raises(InputError, match="no list of rows"):
        check_place(tmp_path)
    (tmp_path / "summary.json").write_text("[")
    with pytest.raises(InputError, match="not readable"):
        write_tables(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "PROOF/bc/checkpoint"}', '{"a": "bc/checkpoint"}'),
        ('{"a": "PROOF"}', '{"a": "."}'),
        ("CWD/runs/x, and PROOF-2/y", "runs/x, and proof-2/y"),
        ("error in /usr/lib/python3/x.py at line 1", "error in <path>/x.py at line 1"),
        ('"failed:\\n/data/sets/x\\n/data/x"', '"failed:\\nx\\n<path>/x"'),
        ("sqlite:////data/sets/runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("/mnt/data/sets/x", "<path>/x"),
        ("https://a.org/b/c, s3://bucket/runs/x, 3 m/s, a/b/c, ../x/y", None),
        ("actor died (ip=10.0.0.7)", "actor died (ip=<host>)"),
        ("on box-17: dead; mybox-17x", "on <host>: dead; mybox-17x"),
    ],
)
def test_paths_become_relative(text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box-17")
    place, here = Path("/data/sets/proof"), Path("/data/sets")
    text = text.replace("PROOF", str(place)).replace("CWD", str(here))
    assert cleaned(text, (place, here)) == (expected or text)


@pytest.mark.parametrize("name", ["x.json", "x.png"])
@pytest.mark.parametrize("private_path", ["HOME", "CWD"])
def test_a_file_with_a_folder_of_this_machine_is_refused(
    name: str, private_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/people/ada"))
    monkeypatch.chdir(tmp_path)
    secret = {"HOME": "/people/ada", "CWD": str(tmp_path)}[private_path]
    path = tmp_path / name
    path.write_bytes(b"\x00 fine, https://people.org/a/b")
    check_public(path)
    path.write_bytes(f"trained in {secret}/x".encode())
    with pytest.raises(InputError, match=f"names {secret}"):
        check_public(path)


@pytest.mark.parametrize("text", ["see /data/sets/x", "~/runs", '"a\\n/opt/b/c"', "ran on box-17."])
def test_a_text_with_another_path_or_the_host_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box-17")
    path = tmp_path / "x.md"
    path.write_text(text)
    with pytest.raises(InputError, match="this machine"):
        check_public(path)


def test_a_name_that_is_a_word_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert private.cleaned("localhost", ()) == "localhost"
