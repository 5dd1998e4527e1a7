import imageio.v3 as imageio
import numpy as np

from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.plots import _labels, plot_success_against_cost
from avavla_ray.evaluation.results import summarise
from avavla_ray.evaluation.video import write_video


def test_video_plays_every_step_and_shows_its_picture(tmp_path):
    frames = [np.full((32, 32, 3), 8 * i, np.uint8) for i in range(12)]
    film = Film()
    film.add(frames[:8], 2, [0.2, 0.7])
    film.add(frames[8:], 0, [])
    write_video(tmp_path / "episode.mp4", film, title="a task", outcome="success after 12 steps", fps=20)
    played = imageio.imread(tmp_path / "episode.mp4")
    assert len(played) == 12 + 20
    means = played[:12, 20:360, 20:360].mean((1, 2, 3))
    np.testing.assert_allclose(means, [8 * i for i in range(12)], atol=6)
    assert played[3, 384:].max() > 150  # the text below the picture


def test_plot_draws_thresholds_and_depths(tmp_path):
    records = [
        EpisodeRecord("threshold_0.50", 0, 0, True, 8, [3], [12.0]),
        EpisodeRecord("depth_5", 0, 0, False, 8, [5], [20.0]),
    ]
    results = [summarise(s, records, {0: "x"}) for s in (ExitSetting(0.5), ExitSetting(fixed_depth=5))]
    plot_success_against_cost(tmp_path / "plot.png", {"BC": results}, "title")
    picture = imageio.imread(tmp_path / "plot.png")
    assert picture.shape[0] > 500
    # Marker and bars of the first checkpoint are drawn in matplotlib's C0.
    assert (np.abs(picture[..., :3].astype(int) - [31, 119, 180]).sum(-1) < 30).sum() > 200


def test_labels_that_would_lie_on_each_other_are_one():
    results = [
        {"exit_threshold": threshold, "ms_mean": ms, "success_rate": success}
        for threshold, ms, success in ((0.3, 12.70, 0.4), (0.55, 12.90, 0.4), (0.75, 12.71, 0.9), (0.95, 17.9, 0.4))
    ]
    labels = _labels(results, "ms_mean", span=5.2)
    assert labels == {(12.70, 0.4): ["0.30", "0.55"], (12.71, 0.9): ["0.75"], (17.9, 0.4): ["0.95"]}
