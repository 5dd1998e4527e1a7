"""One task of real LIBERO is learned from the scripted expert's demonstrations within minutes: the jobs in their order.

Whatever breaks learning without breaking a run (units, camera order, noise that is cloned, a gripper that closes late)
shows here, at the end.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avavla_ray.policy.checkpoint import save_checkpoint
from jobs import bc_libero, collect_demos, evaluate
from tests.support.policies import some_statistics
from tests.support.tabletop_learning import learner_config, learner_policy

pytestmark = [pytest.mark.libero, pytest.mark.ray, pytest.mark.timeout(600)]

SUITE, TASK, SEED = "libero_object", 6, 0  # "pick up the butter and place it in the basket"
DEMONSTRATIONS, NOISE, SIZE = 30, 0.2, 64
STEPS, STREAMS = 700, 64
EPISODES = 20


def test_a_task_is_learned(ray_cluster: dict, tmp_path: Path) -> None:
    demos, uri = tmp_path / "demos", f"sqlite:///{tmp_path}/mlflow.db"
    collect_demos.main(
        collect_demos.Settings(
            SUITE, (TASK,), DEMONSTRATIONS, NOISE, image_size=SIZE, num_runners=2, seed=SEED, output=demos
        )
    )
    start = learner_policy(learner_config(backbone__image_size=SIZE), SEED)
    save_checkpoint(tmp_path / "start", start, some_statistics(), stage="bc", provenance={})
    bc_libero.main(
        bc_libero.Settings(
            (str(demos),), checkpoint=tmp_path / "start", steps=STEPS, streams=STREAMS, workers=2, seed=SEED,
            stages=("cloning@2e-3",), average=0.99, output=tmp_path / "bc", tracking_uri=uri,
        )
    )  # fmt: skip
    evaluate.main(
        evaluate.Settings(
            tmp_path / "bc/checkpoint", suite=(SUITE,), tasks=(TASK,), episodes=EPISODES, thresholds=(), depths=(1,),
            render="fast", num_runners=2, seed=SEED, output=tmp_path / "played", tracking_uri=uri,
        )
    )  # fmt: skip
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / "played").glob("depth_1.json"))
    print(f"{result['successes']} of {result['episodes']}")
    assert result["successes"] >= 0.7 * EPISODES
