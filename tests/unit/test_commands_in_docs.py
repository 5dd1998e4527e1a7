"""Every command line of a job that the documentation shows is one that the job takes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tyro

from avavla_ray.command_line import switch_values

ROOT = Path(__file__).resolve().parents[2]
RAYJOB = ROOT / "cluster/kuberay/job/rayjob.yaml"
COMMAND = re.compile(r"python (?:/opt/avavla/)?jobs/(\w+)\.py\b([^\n`]*)")


def commands() -> list[tuple[str, str, str]]:
    """(file, job, its words) of each that is shown."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/README.md", RAYJOB):
        text = re.sub(r"\\\n\s*", " ", path.read_text())
        if path == RAYJOB:  # a folded scalar: lines that belong together are indented alike
            text = re.sub(r"\n    (?=-)", " ", text)
        found += [(path.name, job, words) for job, words in COMMAND.findall(text)]
    return found


@cache
def settings_of(job: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"job_{job}", ROOT / f"jobs/{job}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module.Settings


def complaint(job: str, words: str) -> str | None:
    """What the job's command line has against them, if anything. Nothing is looked for or started."""
    said = io.StringIO()
    given = re.split(r" [|&;>] ?| && ", words)[0]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            settings = settings_of(job)
            words = [word for word in shlex.split(given, comments=True) if word != "..."]
            tyro.cli(settings, args=switch_values(words, settings))
        except SystemExit:
            return said.getvalue()
    return None


def test_there_are_commands_of_most_jobs() -> None:
    assert len({job for _, job, _ in commands()}) >= 12
    assert {file for file, _, _ in commands()} > {"README.md", "jobs.md", "cluster_aws.md", "rayjob.yaml"}


@pytest.mark.parametrize(("file", "job", "words"), commands())
def test_a_job_takes_what_the_documentation_gives_it(file: str, job: str, words: str) -> None:
    assert complaint(job, words) is None


def test_a_flag_that_does_not_exist_is_noticed() -> None:
    assert "--num-runers" in str(complaint("ppo_libero", "--suite libero_spatial --num-runers 4"))
