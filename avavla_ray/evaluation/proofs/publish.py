"""results/: a folder a proof and seed, summary.json with the rows of all of them, and the tables of README.md."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.proofs.private import check_public
from avavla_ray.evaluation.proofs.result import ROWS, files_of
from avavla_ray.evaluation.proofs.table import README, SUMMARY, read_rows, split_readme, write_tables
from avavla_ray.files import atomic_path, write_json


def publish(result: Path, results: Path) -> Path:
    """Copy a proof's result into the folder of all, and bring summary and tables up to date.

    The folders are what counts: rows of others that the summary lacks come back.

    Args:
        result: as `write_result` left it.

    Returns:
        The folder it was copied to.

    Raises:
        InputError: a file names this machine, or the summary that is there is not readable.
    """
    rows = read_rows(result / ROWS)
    if not rows:
        raise InputError(f"{result / ROWS} holds no rows: run the proof again")
    for path in files_of(result):
        check_public(path)
    proof, seed = str(rows[0]["proof"]), int(rows[0]["seed"])
    target = results / f"{proof}-{seed}"
    with atomic_path(target) as temporary:
        shutil.copytree(result, temporary)
    write_json(results / SUMMARY, published(results))
    write_tables(results)
    return target


def published(results: Path) -> list[dict[str, Any]]:
    """The rows of all folders in `results`, by proof and seed; within them in their own order."""
    # Hidden folders are what a process left that was killed as it published.
    paths = [path for path in results.glob(f"*/{ROWS}") if not path.parent.name.startswith(".")]
    rows = [row for path in paths for row in read_rows(path)]
    return sorted(rows, key=lambda row: (row["proof"], row["seed"]))


def check_place(results: Path) -> None:
    """Refuse a folder that can't be published to, before anything is run.

    Raises:
        InputError: the rows of a folder in it are not readable, or its README.md has no place for the tables.
    """
    published(results)
    split_readme(results / README)
