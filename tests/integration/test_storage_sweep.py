"""A sweep over PPO runs whose trials keep what they go on from in a store, so that they may be on any machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.storage import names
from avavla_ray.storage.arguments import mirrored
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place
from avavla_ray.storage.transfers import listing
from jobs.sweep_gae import Settings, main
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy
from tests.support.unreliable_store import s3_store

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


def test_trials_keep_their_checkpoints_in_the_store_and_the_sweep_is_resumed_from_there(
    ray_cluster, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(names, "_addresses", {})
    monkeypatch.setattr(names, "_output", [])
    save_checkpoint(tmp_path / "start", responsive_policy(max_steps=2), point_statistics(), stage="bc", provenance={})
    settings = Settings(
        checkpoint=tmp_path / "start", suite="tests.support.point_simulator:PointSimulator", recipe="tiny",
        train_gate=False, trials=2, env_steps=600, num_runners=1, over=("gae_lambda", "clip", "max_lag"), isolate=False,
        save_updates=1, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip
    with s3_store() as address:
        # Keys in the address reach the trials with it; those of the environment would not reach this cluster.
        uri = f"s3://anyone:hushhush@robots/sweep?endpoint_override={address}&scheme=http"
        for resume in (False, True):
            with mirrored(uri) as folder:
                main(replace(settings, output=folder, resume=resume))
            assert not (folder / "tune").exists()
        root = Place.of(uri)
        assert {"best_recipe.json", "trials.md", "results.jsonl"} <= set(read_manifest(root).files)
        kept = listing(root / "tune")
        assert len([name for name in kept if name.endswith("rllib_checkpoint.json") or "checkpoint_" in name]) > 2
    said = capfd.readouterr()
    assert "hushhush" not in said.out + said.err
    assert "hushhush" not in "".join(path.read_text() for path in folder.glob("*.json*"))
