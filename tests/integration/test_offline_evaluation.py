"""Offline evaluation on a real Ray cluster, through the job's command line."""

import json
import math

import imageio.v3 as imageio
import pytest
import tyro

from actors.offline_evaluator import DataUnits, Walk, walk_demonstrations
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.offline import load_demonstration, walk
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.tracking import find_runs
from jobs.evaluate import Settings, main
from tests.support.demonstration_data import make_dataset
from tests.support.mortal_agent import MortalAgent
from tests.support.policies import stirred_policy, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with demonstrations and a checkpoint that holds out three of them."""
    folder = tmp_path_factory.mktemp("offline")
    metadata = read_metadata(make_dataset(folder / "demos", episodes=5, steps=20))
    held_out = {metadata.name: [metadata.episodes[index].episode for index in (0, 2, 3)]}
    save_checkpoint(
        folder / "checkpoint", stirred_policy(tiny()), metadata.statistics,
        stage="bc", provenance={"seed": 3}, extra={"held_out": held_out},
    )  # fmt: skip
    return folder


def evaluate(place, *arguments):
    fixed = ["--checkpoint", str(place / "checkpoint"), "--tracking-uri", f"sqlite:///{place}/mlflow.db"]
    main(tyro.cli(Settings, args=[*fixed, *arguments]))


def test_the_job_measures_held_out_demonstrations_and_resumes(ray_cluster, place, capsys):
    output, demos = place / "out", str(place / "demos")
    asked = ["--offline", "--demos", demos, "--output", str(output), "--thresholds", "1.0"]
    evaluate(place, *asked, "--depths", "0", "--num-runners", "2")
    assert "libero_object: 3 of 5 demonstrations, held out of training" in capsys.readouterr().out
    first = json.loads((output / "offline_depth_0.json").read_text())
    ledger = output / "offline.jsonl"
    lines = ledger.read_text().splitlines()
    assert len(lines) == 1 + 3 * 2

    with pytest.raises(InputError, match="add --resume"):
        evaluate(place, *asked, "--depths", "0")
    ledger.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])  # killed while it wrote
    evaluate(place, *asked, "--depths", "0", "2", "--num-runners", "1", "--resume")
    assert [json.loads(line) for line in ledger.read_text().splitlines()[:-4]] == [json.loads(x) for x in lines[:-1]]
    assert len(ledger.read_text().splitlines()) == 1 + 3 * 3

    results = {name: json.loads((output / f"offline_{name}.json").read_text()) for name in ("depth_0", "depth_2")}
    results["1.00"] = json.loads((output / "offline_threshold_1.00.json").read_text())
    assert results["depth_0"]["l1_dimensions"] == pytest.approx(first["l1_dimensions"])
    for result in results.values():
        assert (result["episodes"], result["steps"], result["decisions"]) == (3, 20 + 22 + 20, 9)
        assert result["held_out"] is True
        assert result["provenance"]["trained"] == {"seed": 3}
        assert result["demonstrations"][0]["where"] == demos
        assert 0 < result["l1"] < 3
        assert 0 < result["ms_p50"] <= result["ms_p90"]
        assert math.isfinite(result["norm_error"])
    assert [results[name]["mean_latent_steps"] for name in ("depth_0", "depth_2", "1.00")] == [0, 2, 5]
    assert len({result["l1"] for result in results.values()}) == 3
    assert imageio.imread(output / "offline.png").shape[1] > 1000
    assert "| fixed depth 2" in (output / "offline.md").read_text()

    runs = find_runs(uri=f"sqlite:///{place}/mlflow.db", kind="offline")
    assert {run.data.params["exit_setting"] for run in runs} == {"1.00", "fixed depth 0", "fixed depth 2"}
    (run,) = [run for run in runs if run.data.params["exit_setting"] == "fixed depth 2"]
    assert run.data.metrics["l1_gripper"] == pytest.approx(results["depth_2"]["l1_dimensions"]["gripper"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--offline"], "give --demos"),
        (["--demos", "somewhere"], "--offline: add it"),
        (["--offline", "--demos", "x", "--render", "fast"], "leave out --render"),
        (["--offline", "--demos", "nowhere"], "no demonstrations at nowhere"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(place, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate(place, *arguments)


def test_a_killed_actor_costs_no_demonstration_and_doubles_none(ray_cluster, place, tmp_path):
    metadata = read_metadata(place / "demos")
    agent = Agent(stirred_policy(tiny()).eval(), metadata.statistics)
    setting = ExitSetting(fixed_depth=1)
    walks, found = [Walk(metadata.name, index, (setting,)) for index in range(5)], []
    data = DataUnits(metadata, MortalAgent(agent, tmp_path / "mark", number=6))
    walk_demonstrations({metadata.name: data}, walks, 1, found.append)
    assert (tmp_path / "mark").exists()

    reader = EpisodeReader(metadata)
    assert sorted(record.episode for record in found) == [info.episode for info in metadata.episodes]
    for record in found:
        index = [info.episode for info in metadata.episodes].index(record.episode)
        undisturbed = walk(agent, load_demonstration(reader, index, agent.policy.config.chunk), setting)
        assert record.errors == pytest.approx(undisturbed.errors)
