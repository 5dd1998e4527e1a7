"""What an ablation trains, plays and says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.ablation import Play, ablation_table, play_list, plot_ablation, read_rows, variants
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.results import summarise
from jobs.ablate import Settings, check, main


@pytest.mark.parametrize("with_ppo", [True, False])
def test_every_variant_starts_from_one_that_is_there_and_the_full_one_is_played_at_all_settings(with_ppo: bool) -> None:
    family, there = variants(with_ppo=with_ppo), set[str]()
    for variant in family:
        assert not variant.start or variant.start in there
        there.add(variant.checkpoint)
    assert len(there) == len(family)
    plays = {play.variant.name: play for play in play_list(family, 5, (0, 1, 3, 5, 10), 0.55)}
    assert (plays["full"].thresholds, plays["full"].depths) == ((0.55,), (5, 0, 1, 3, 10))
    names = {"full", "no AVA", "no belief", "no RL, no latent reasoning" if with_ppo else "no latent reasoning"}
    assert set(plays) == names | ({"no RL"} if with_ppo else set())
    bare = next(play for name, play in plays.items() if "latent" in name)
    assert (bare.thresholds, bare.depths) == ((), (0,))


def played(folder: Path, plays: list[Play], success: dict[str, float]) -> None:
    """Evaluations as jobs/evaluate.py leaves them, of 40 episodes."""
    for play in plays:
        records = []
        for setting in play.settings:
            for state in range(40):
                good = state < round(40 * success[play.variant.name])
                records.append(EpisodeRecord(setting.label, 0, state, good, 16, [2, 2], [10.0, 12.0]))
        here = folder / play.variant.key
        here.mkdir(parents=True)
        for setting in play.settings:
            (here / f"{setting.label}.json").write_text(
                json.dumps(summarise(setting, records, {0: "reach"}, suite="tabletop"))
            )


def test_rows_are_compared_pair_by_pair_with_the_full_policy(tmp_path: Path) -> None:
    family = variants(with_ppo=True)
    plays = play_list(family, 5, (0, 5), 0.55)
    played(tmp_path, plays, {
        "full": 0.9, "no AVA": 0.9, "no belief": 0.3, "no RL": 0.6, "no RL, no latent reasoning": 0.5,
    })  # fmt: skip
    rows = read_rows(tmp_path, plays, 5)
    found = {row.title: row for row in rows}
    assert rows[0].title == "full, fixed depth 5"
    assert rows[0].against is None
    other, paired = found["no belief, fixed depth 5"].against
    assert (other, paired.both, paired.only_a, paired.only_b, paired.neither) == (rows[0].title, 12, 0, 24, 4)
    assert found["no RL, no latent reasoning, fixed depth 0"].against[0] == "no RL, fixed depth 5"
    assert found["full, adaptive 0.55"].against[1].p_value == 1.0
    table = ablation_table(rows)
    assert "no belief, fixed depth 5" in table
    assert "-60.0 (" in table
    plot_ablation(tmp_path / "ablation.png", rows, "title")
    assert np.ptp(imageio.imread(tmp_path / "ablation.png")) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_depth": 4}, "--max-depth 4: the deepest of --depth and --depths is 10"),
        ({"episodes": 1000}, "--episodes 1000: tabletop has 1 to"),
        ({"ppo_recipe": "paprika"}, "paprika"),
        ({"bc_steps": 0}, "--bc-steps needs to be more than 0"),
        ({"demos": "nowhere"}, "no demonstrations at nowhere"),
        ({"max_steps": 0}, "max_steps|step"),
        ({"suite": "calvin_d_chains"}, "an ablation plays single tasks"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_starts(tmp_path: Path, changes: dict, message: str) -> None:
    settings = Settings(suite="tabletop", preset="tiny", output=tmp_path / "new")
    check(settings)
    with pytest.raises(InputError, match=message):
        check(replace(settings, **changes))


def test_what_was_trained_with_other_settings_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("avavla_ray.job_chain.run_stage", lambda title, job, words: asked.append(job) or 1 / 0)
    settings = Settings(
        suite="tabletop", preset="tiny", output=tmp_path / "new", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"
    )
    with pytest.raises(ZeroDivisionError):
        main(settings)
    assert asked == ["collect_demos"]
    with pytest.raises(InputError, match="seed 0 -> 1"):
        main(replace(settings, resume=True, seed=1))
    with pytest.raises(ZeroDivisionError):
        main(replace(settings, resume=True, episodes=10))
