"""The tables of results/README.md, from results/summary.json alone.

python -m avavla_ray.evaluation.proofs.table results
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.evaluation.proofs.catalogue import PROOFS, Options, proof
from avavla_ray.evaluation.proofs.targets import MISSED
from avavla_ray.evaluation.tables import aligned, cell
from avavla_ray.files import write_text

SUMMARY, README = "summary.json", "README.md"
BEGIN, END = "<!-- proofs -->", "<!-- end proofs -->"
NOT_RUN = "not run yet"
PICTURES = ("bc/learning_curve.png", "ppo/learning_curve.png", "sweep/pareto.png", "calibrated/reliability.png")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of the tables."""

    results: tyro.conf.Positional[Path] = Path("results")
    """Folder with summary.json and README.md."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A list of rows.

    Raises:
        InputError: the file is not one.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable ({error}): restore it, or run a proof with --publish") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"proof", "seed"} <= row.keys() for row in rows):
        raise InputError(f"{path} is no list of rows with proof and seed: restore it")
    return rows


def write_tables(results: Path) -> None:
    """Rewrite what stands between the markers of README.md; a README.md that is not there is begun.

    Raises:
        InputError: README.md has no markers, or summary.json is not readable.
    """
    path = results / README
    head, tail = split_readme(path)
    tables = all_tables(read_rows(results / SUMMARY), results)
    write_text(path, f"{head}{BEGIN}\n\n{tables}\n{END}{tail}")


def split_readme(path: Path) -> tuple[str, str]:
    """What stands before and after the tables.

    Raises:
        InputError: there is no place for them.
    """
    if not path.is_file():
        return "# Results\n\n", "\n"
    head, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} lacks the lines {BEGIN} and {END}, between which the tables stand: add them")
    return head, tail


def all_tables(rows: Sequence[Row], results: Path) -> str:
    """An overview of all targets, then each proof's section.

    Args:
        results: pictures that are there are shown.
    """
    known = {name: proof(name, Options()) for name in PROOFS}
    names = [*known, *sorted({str(row["proof"]) for row in rows} - known.keys())]
    overview, sections = [], []
    for name in names:
        mine = [row for row in rows if row["proof"] == name]
        judged = [(row, each) for row in mine for each in row.get("targets", ())]
        overview += [[name, str(row["seed"]), each["target"], _said(each)] for row, each in judged]
        if not mine:
            overview += [[name, "", target.text, NOT_RUN] for target in known[name].targets]
        sections.append(proof_section(name, known[name].sentence if name in known else "", mine))
        sections += _pictures(mine, results)
    head = aligned(["proof", "seed", "target", "outcome"], overview) if overview else ""
    return head + "\n" + "\n".join(sections)


def proof_section(name: str, sentence: str, rows: Sequence[Row]) -> str:
    """Sentence, table and verdicts of one proof, all seeds."""
    lines = [f"### {name}", "", *([sentence, ""] if sentence else [])]
    if not rows:
        return "\n".join([*lines, f"`python jobs/prove.py {name}`: {NOT_RUN}.", ""])
    lines += [f"`{command}`" + "  " for command in dict.fromkeys(row["command"] for row in rows)]
    lines += ["", proof_table(rows)]
    for row in rows:
        for each in row.get("targets", ()):
            lines.append(f"- seed {row['seed']}: {each['target']}: {_said(each)}")
    lines += ["", *_remarks(rows)]
    return "\n".join(lines)


def proof_table(rows: Sequence[Row]) -> str:
    """The numbers. Of chains, success is that of the first task."""
    chains = any("average_length" in row for row in rows)
    head = ["seed", "policy", *(["average length (95 %)"] if chains else []),
            "first task" if chains else "success", "95 % interval", "chains" if chains else "episodes",
            "difference (95 %)", "latent steps", "ms a decision", "assets", "render", "minutes", "commit"]  # fmt: skip
    lines = []
    for row in rows:
        low, high = row["ci95"]
        length, lost = list[str](), f" ({row['aborted']} aborted)" if row.get("aborted") else ""
        if chains:
            ends = row["average_length_ci95"]
            length = [f"{cell(row['average_length'], '.2f')} ({ends[0]:.2f} to {ends[1]:.2f})"]
        lines.append(
            [
                str(row["seed"]), row["row"], *length, cell(row["success_rate"], ".1%"), f"{low:.1%} to {high:.1%}",
                f"{row['successes']}/{row['episodes']}{lost}",
                _difference(row, chains), cell(row["mean_latent_steps"], ".2f"), cell(row["ms_per_decision"], ".1f"),
                row["assets"], row["render"], cell(row["wall_minutes"], ".0f"), _short(row["commit"]),
            ]
        )  # fmt: skip
    return aligned(head, lines)


def _difference(row: Row, chains: bool) -> str:
    if row.get("difference") is None:
        return ""
    scale, form, unit = (1, "+.2f", "") if chains else (100, "+.1f", " points")
    low, high = (scale * end for end in row["difference_ci95"])
    return f"{format(scale * row['difference'], form)}{unit} ({format(low, form)} to {format(high, form)})"


def _short(commit: str) -> str:
    """The first digits; "+changes" stays."""
    digits, plus, more = commit.partition("+")
    return digits[:9] + plus + more


def _said(each: Mapping[str, str]) -> str:
    reached = f"**{each['reached']}**" if each["reached"] == MISSED else each["reached"]
    return f"{reached}: {each['why']}"


def _remarks(rows: Sequence[Row]) -> list[str]:
    """Machines and deviations, each once."""
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    deviations = list(dict.fromkeys(each for row in rows for each in row.get("deviations", ())))
    said = [f"Machine: {'; '.join(machines)}."]
    if deviations:
        said.append(f"Other than the published protocol: {'; '.join(deviations)}.")
    folders = list(dict.fromkeys(f"{row['proof']}-{row['seed']}" for row in rows))
    return [*said, f"Raw results, curves and videos: {', '.join(f'`{folder}/`' for folder in folders)}.", ""]


def _pictures(rows: Sequence[Row], results: Path) -> list[str]:
    folders = dict.fromkeys(f"{row['proof']}-{row['seed']}" for row in rows)
    places = (f"{folder}/{name}" for folder in folders for name in PICTURES)
    return [f"![{place}]({place})\n" for place in places if (results / place).is_file()]


def main(settings: Settings) -> None:
    write_tables(settings.results)
    print(f"tables in {settings.results / README}")


if __name__ == "__main__":
    run_job(main, Settings)
