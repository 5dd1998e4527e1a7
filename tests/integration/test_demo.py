"""`make demo` in small: every job as its own process, in the order and with the flags that a newcomer gets."""

import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import pytest

from avavla_ray.tracking import find_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.libero
@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_whole_mission_in_small(tmp_path):
    out, uri = tmp_path / "demo", f"sqlite:///{tmp_path}/mlflow.db"
    words = ["--demonstrations", "2", "--bc-minutes", "0.2", "--ppo-minutes", "0.4", "--episodes", "1",
             "--thresholds", "0.55", "--depths", "1", "--output", out, "--tracking-uri", uri]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "jobs/demo.py", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "RAY_ADDRESS": "local"}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    table = (out / "compare" / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["BC", "BC", "PPO", "PPO"]
    assert imageio.imread(out / "compare" / "success_against_latent_steps.png").ndim == 3
    assert len(list(out.glob("evaluate-*/videos/*.mp4"))) == 2
    for kind, runs in (("bc", 1), ("ppo", 1), ("evaluation", 4)):
        assert len(find_runs(uri=uri, kind=kind)) == runs
    for mentioned in ("success_against_latent_steps.png", ".mp4", "mlflow ui", "compare-runs?runs="):
        assert mentioned in result.stdout.replace(str(Path(sys.executable).parent) + "/", "")
