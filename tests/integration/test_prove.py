"""A proof from demonstrations to the published table, in small, each job as its own process on the table-top."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avavla_ray.evaluation.proofs.catalogue import Options, collect, play
from avavla_ray.evaluation.proofs.step import Inside, Play, Proof, Step
from avavla_ray.evaluation.proofs.targets import SuccessAtLeast
from jobs.prove import Settings, prove

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TASK = ("--tasks", 0)


def tiny_proof(options: Options) -> Proof:
    cloning = ("--demos", Inside("demos"), "--preset", "tiny", "--recipe", "tiny", "--workers", 1)
    return Proof(
        "tiny",
        "Two demonstrations teach nothing.",
        (
            collect("tabletop", 2, options, words=(*TASK, "--image-size", 32)),
            Step("bc", "cloning", "bc_libero", (*cloning, *options.seeded()), "checkpoint/manifest.json"),
            play("evaluate", "bc", "tabletop", options, label="BC", words=(*TASK, "--episodes", 2),
                 exits=("--thresholds", "--depths", 1)),
        ),
        (Play("BC", "evaluate"),),
        (SuccessAtLeast("BC", 1.0),),
    )  # fmt: skip


@pytest.mark.long
def test_a_proof_is_run_published_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    folder, results, uri = tmp_path / "tiny-3", tmp_path / "results", f"sqlite:///{tmp_path}/mlflow.db"
    settings = Settings("tiny", seed=3, num_runners=1, publish=results)
    proof = tiny_proof(Options(seed=3))
    prove(proof, settings, folder, uri)

    (row,) = json.loads((results / "summary.json").read_text())
    assert (row["name"], row["seed"], row["episodes"]) == ("tiny/BC", 3, 2)
    assert (row["assets"], row["render"], row["mean_latent_steps"]) == ("none", "fast", 1.0)
    assert row["successes"] == round(2 * row["success_rate"])
    assert row["command"] == "python jobs/prove.py tiny --seed 3 --assets bundled --render fast"
    assert 0 < row["minutes_by_step"]["bc"] < row["wall_minutes"] < 5
    assert "render fast instead of reference" in row["deviations"]
    published = results / "tiny-3"
    assert {"row.json", "table.md", "bc", "evaluate", "videos"} == {path.name for path in published.iterdir()}
    assert json.loads((published / "evaluate/depth_1.json").read_text())["checkpoint_path"] == "bc/checkpoint"
    assert {path.name for path in (published / "bc").iterdir()} == {"curve.jsonl", "learning_curve.png"}
    assert len(list((published / "videos").iterdir())) == 1
    for path in (path for path in results.rglob("*") if path.is_file()):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "### tiny" in (results / "README.md").read_text()

    drawn_anew = ("result", "curve.jsonl", "learning_curve.png")
    files = (path for path in folder.glob("*/*") if not {path.name, path.parent.name} & set(drawn_anew))
    before = {path: path.stat().st_mtime_ns for path in files}
    capfd.readouterr()
    prove(proof, settings, folder, uri)
    said = capfd.readouterr().out
    assert said.count("finished already") == 3
    assert "$ python" not in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((results / "summary.json").read_text()) == [row]
