"""What a submitted job ships, as Ray itself packs it, and what it is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from avavla_ray import submission
from avavla_ray.errors import InputError
from avavla_ray.provenance import git_commit
from avavla_ray.submission import runtime_env, untracked

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("actors/cluster.py", "jobs/evaluate.py", "cluster/setup.sh", "pyproject.toml", "tests/support/ports.py")
AT_HOME = (
    ".git/HEAD", ".venv/bin/python", "runs/bc/checkpoint/weights.bin", "runs/mlflow.db", "mlruns/0/meta.yaml",
    "demos/episode.parquet", "models/oft/model-00001.safetensors", "film.mp4", "jobs/__pycache__/evaluate.pyc",
    ".mypy_cache/x", ".env", "cluster/.env.production", "prod.env", "cluster/robots.pem", "key.key", "id_ed25519",
    ".aws/credentials", "cluster/gcp-credentials-1.json", "robots-service-account.json", "secrets.yaml", ".netrc",
)  # fmt: skip


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def plant(folder: Path, files: Sequence[str]) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")


def packed(folder: Path, excludes: Sequence[str] = ()) -> set[str]:
    package = folder.parent / "package.zip"
    create_package(str(folder), package, include_gitignore=True, excludes=list(excludes))
    with zipfile.ZipFile(package) as content:
        return {name for name in content.namelist() if not name.endswith("/")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    plant(folder, SHIPPED)
    return folder


def test_no_data_and_no_secret_is_shipped_with_a_plain_working_dir(tree: Path) -> None:
    plant(tree, AT_HOME)
    assert packed(tree) == {*SHIPPED, ".rayignore", ".gitignore"}


def test_what_git_does_not_know_stays_at_home(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "x")
    assert untracked(tree) == []
    plant(tree, ["notes [my] #1!.txt", "scratch/a.py", "scratch/b.py", "jobs/mine.py", "notes my 1.txt"])
    git(tree, "add", "notes my 1.txt")
    assert untracked(tree) == ["jobs/mine.py", "notes [my] #1!.txt", "scratch"]
    excludes = [f"/{submission._literally(path)}" for path in untracked(tree)]
    assert packed(tree, excludes) == {*SHIPPED, "notes my 1.txt", ".rayignore", ".gitignore"}


def test_a_job_is_told_its_commit_and_what_else_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVAVLA_COMMIT", raising=False)
    environment = runtime_env({"MUJOCO_GL": "osmesa"})
    variables = {"AVAVLA_COMMIT": git_commit(), "MUJOCO_GL": "osmesa", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    assert environment["env_vars"] == variables
    assert environment["working_dir"] == str(ROOT)
    assert runtime_env({"RAY_JOB_STOP_WAIT_TIME_S": "5"})["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "5"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "db_password", "GOOGLE_APPLICATION_CREDENTIALS"])
def test_a_secret_is_not_put_where_the_dashboard_shows_it(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} would be shown"):
        runtime_env({name: "x"})


@pytest.mark.parametrize(
    "value",
    [
        "http://user:hush@host", "http://user:1234@host:5000", "s3://AKIA1:hush/hush@robots/runs?region=eu-west-1",
        "s3://robots/runs?region=eu-west-1&Secret_Key=hush", "https://robots.blob/runs?sig=hush",
        "postgresql://:hush@host/mlflow",
    ],
)  # fmt: skip
def test_nor_is_one_in_an_address(value: str) -> None:
    with pytest.raises(InputError, match="AVAVLA_RUNS would be shown") as refusal:
        runtime_env({"AVAVLA_RUNS": value})
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    "value",
    [
        "http://host:5000", "http://host:5000/a@b", "s3://robots/runs?region=eu-west-1&endpoint_override=http://h:9000",
        "sqlite:////data/mlflow.db", "abfs://robots@account.dfs.core.windows.net/runs", "s3://keys/monkey",
    ],
)  # fmt: skip
def test_an_address_without_one_is_taken(value: str) -> None:
    assert runtime_env({"AVAVLA_RUNS": value})["env_vars"]["AVAVLA_RUNS"] == value


def test_what_git_ignores_for_this_user_only_is_not_shipped_either(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", ".")
    (tree / ".git/info/exclude").write_text("mine/\nnotes.txt\n")
    plant(tree, ["mine/a.py", "notes.txt", "runs/bc/weights.bin"])
    assert untracked(tree) == ["mine", "notes.txt"]
    assert packed(tree, [f"/{path}" for path in untracked(tree)]) == {*SHIPPED, ".rayignore", ".gitignore"}


def test_without_a_commit_the_package_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "_ray_pkg_0123abcd"
    (folder / "avavla_ray").mkdir(parents=True)
    for name in ("__init__.py", "provenance.py", "machines.py", "errors.py"):
        shutil.copy(ROOT / "avavla_ray" / name, folder / "avavla_ray" / name)
    code = "from avavla_ray.provenance import git_commit; print(git_commit())"
    words = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    said = subprocess.run(words, cwd=folder, env={}, check=True, capture_output=True, text=True).stdout
    assert said.strip() == "unknown (package 0123abcd)"


def test_the_command_prints_what_ray_takes_and_refuses_what_is_no_variable() -> None:
    words = [sys.executable, "-m", "avavla_ray.submission"]
    done = subprocess.run([*words, "A=b=c"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["env_vars"]["A"] == "b=c"
    done = subprocess.run([*words, "A"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: A: expected NAME=VALUE ...\n")
