"""What the PPO job refuses before anything starts; test_submitted_jobs.py runs it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from jobs.ppo_libero import Settings, main
from tests.support.demonstration_data import make_dataset
from tests.support.point_simulator import point_statistics
from tests.support.policies import some_statistics

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "libero_objekt"}, "did you mean 'libero_object'"),
        ({"tasks": (12,)}, "task 12 does not exist"),
        ({"checkpoint": Path("nowhere")}, "there is no checkpoint at nowhere"),
        ({"demos": Path("nowhere")}, "no demonstrations at nowhere"),
        ({"recipe": "papre"}, "did you mean 'paper'"),
        ({"minutes": 0.0}, "minutes 0.0: training needs more than none"),
        ({"exit_threshold": 1.5}, "exit threshold 1.5"),
        ({"num_runners": 0}, "at least 1"),
        ({"resume": True}, "holds no run to resume"),
        ({"unnorm_key": "arm"}, "--unnorm-key names a data set of the --checkpoint"),
    ],
)
def test_bad_input_is_named_before_anything_starts(changes: dict, message: str, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = replace(Settings(output=tmp_path / "run", tracking_uri=uri), **changes)
    with pytest.raises(InputError, match=message):
        main(settings)
    assert not (tmp_path / "run").exists(), "a refused run must not use up its folder"


def test_one_of_several_data_sets_is_named_and_a_resumed_run_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: replace(some_statistics(), name=name) for name in ("first", "other")}
    save_checkpoint(tmp_path / "bc", AvaVlaPolicy(preset("tiny")), known, stage="bc", provenance={})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = Settings(checkpoint=tmp_path / "bc", output=tmp_path / "run", tracking_uri=uri)
    with pytest.raises(InputError, match="name one of first, other"):
        main(settings)
    with pytest.raises(InputError, match="did you mean 'first'"):
        main(replace(settings, unnorm_key="frist"))
    assert not (tmp_path / "run").exists()

    def no_cluster(cpus: int) -> None:
        raise ConnectionError(f"{cpus} processors")

    monkeypatch.setattr("actors.cluster.connect", no_cluster)
    with pytest.raises(ConnectionError):
        main(replace(settings, unnorm_key="first"))
    with pytest.raises(InputError, match=r"other settings \(unnorm_key first -> other\)"):
        main(replace(settings, unnorm_key="other", resume=True))


def test_demonstrations_must_go_with_the_checkpoint(tmp_path: Path) -> None:
    demos = make_dataset(tmp_path / "demos", episodes=2)
    settings = Settings(output=tmp_path / "run", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", demos=demos)
    with pytest.raises(InputError, match="give that too"):
        main(settings)
    policy = AvaVlaPolicy(preset("tiny"))
    save_checkpoint(tmp_path / "bc", policy, point_statistics(), stage="bc", provenance={})
    with pytest.raises(InputError, match="in other units"):
        main(replace(settings, checkpoint=tmp_path / "bc"))
    assert not (tmp_path / "run").exists()
