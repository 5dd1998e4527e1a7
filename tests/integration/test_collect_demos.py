"""The collecting job on real LIBERO: what it writes, that repeating it adds nothing, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from jobs.collect_demos import Settings, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.libero
@pytest.mark.ray
def test_real_demonstrations(ray_cluster, tmp_path, capsys):
    settings = Settings(suite="libero_object", tasks=(0,), episodes=2, image_size=64, num_runners=2, output=tmp_path)
    main(settings)
    metadata = read_metadata(tmp_path)
    assert [(e.task, e.attempt, e.dropped >= 0) for e in metadata.episodes] == [(0, 0, True), (0, 1, True)]
    simulator = metadata.manifest["provenance"]["simulator"]
    assert simulator["assets"] == "bundled"
    assert simulator["assets_digest"] == metadata.manifest["collection"]["assets_digest"]
    assert metadata.manifest["provenance"]["seed"] == 0
    reader = EpisodeReader(metadata)
    starts = []
    for index, episode in enumerate(metadata.episodes):
        proprio, actions = reader.numbers(index)
        assert 40 < episode.steps < 280
        assert set(actions[:, 6]) == {-1.0, 1.0}
        assert np.abs(actions).max() <= 1.0
        assert reader.images(index, [0, episode.steps - 1]).std() > 10, "pictures of something"
        starts.append(proprio[0])
    assert np.abs(starts[0] - starts[1]).max() > 1e-4, "starts are drawn"
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").iterdir()}
    capsys.readouterr()
    main(settings)
    assert "2 demonstrations" in (output := capsys.readouterr().out)
    assert " 0 of them new" in output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").iterdir()} == files
    with pytest.raises(InputError, match="seed 0 -> 1"):
        main(replace(settings, seed=1))
    with pytest.raises(InputError, match="is not empty"):
        main(replace(settings, resume=False))


@pytest.mark.ray
def test_a_task_without_an_expert_is_named_and_left_out(ray_cluster, tmp_path, capsys):
    settings = Settings(
        suite="tests.support.half_taught:HalfTaughtSimulator", episodes=2, image_size=32, num_runners=1, output=tmp_path
    )
    main(settings)
    reason = "no scripted expert for what is on the left"
    assert f"0 kept, 0 not solved, 0 lost, left out: {reason}" in capsys.readouterr().out
    metadata = read_metadata(tmp_path)
    assert [episode.task for episode in metadata.episodes] == [0, 0]
    assert metadata.manifest["tasks_without_expert"] == {"1": reason}
    with pytest.raises(InputError, match=f"task 1: {reason}; leave it out with --tasks"):
        main(replace(settings, tasks=(0, 1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "libero_objct"}, "did you mean 'libero_object'"),
        ({"tasks": (10,)}, "task 10 does not exist"),
        ({"episodes": 0}, "0 episodes a task"),
        ({"num_runners": 0}, "give at least 1"),
        ({"assets": "nowhere"}, "nowhere is not a directory"),
        ({"suite": "tests.support.point_simulator:PointSimulator"}, "has no scripted expert"),
    ],
)
def test_wrong_input_ends_at_once(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        main(Settings(**{"output": tmp_path, **changes}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--demos", "nowhere"], "no demonstrations at nowhere"),
        (["--demos", "nowhere", "--preset", "smal"], "did you mean 'small'"),
        (["--demos", "nowhere", "--recipe", "dmo"], "did you mean 'demo'"),
        (["--demos", "nowhere", "--checkpoint", "nothing"], "no checkpoint at nothing"),
    ],
)
def test_cloning_refuses_wrong_input_in_one_line(tmp_path, words, message):
    job = [sys.executable, str(ROOT / "jobs/bc_libero.py"), *words]
    done = subprocess.run(job, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
