import imageio.v3 as imageio
import matplotlib
import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.heat_map import draw_weights, weight_field
from avavla_ray.evaluation.pareto import pareto_front
from avavla_ray.evaluation.plot_names import NamedPoint, place_names
from avavla_ray.evaluation.plots import plot_success_against_cost
from avavla_ray.evaluation.results import summarise
from avavla_ray.evaluation.thinking_plot import plot_thinking
from avavla_ray.evaluation.video import Scene, picture_of, write_video

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.text import Text


def test_video_plays_every_step_and_shows_its_picture(tmp_path):
    frames = [np.full((32, 32, 3), 8 * i, np.uint8) for i in range(12)]
    film = Film()
    film.add(frames[:8], 2, [0.2, 0.7])
    film.add(frames[8:], 0, [])
    write_video(tmp_path / "episode.mp4", [Scene(film, "a task", "success after 12 steps")], fps=20)
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


def drawn_names(points):
    """The names that `place_names` gives these points in a small plot, and the boxes that they take."""
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.set(xlim=(0, 6), ylim=(0, 1))
    figure.draw_without_rendering()
    tags = place_names(axis, points)
    figure.canvas.draw()
    boxes = [Text.get_window_extent(tag) for tag in tags]  # without the lines to their points
    marks = [axis.transData.transform((point.x, point.y)) for point in points]
    plt.close(figure)
    return [tag.get_text() for tag in tags], boxes, marks


def test_no_name_covers_another_one_or_a_point():
    near = [(1 + 0.05 * i, 0.5 + 0.02 * (i % 3)) for i in range(9)] + [(5.9, 0.98), (0.05, 0.02), (3.0, 0.5)]
    points = [NamedPoint(x, y, y - 0.2, y + 0.2, f"{i / 10:.2f}", "C0") for i, (x, y) in enumerate(near)]
    names, boxes, marks = drawn_names(points)
    assert ", ".join(names).replace(",\n", ", ").split(", ") == [point.name for point in points]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*mark) for mark in marks)


def test_points_that_lie_on_each_other_share_a_name_if_they_are_of_one_colour():
    places = [("0.30", 1.0, "C0"), ("0.55", 1.01, "C0"), ("K=1", 1.0, "C1"), ("0.95", 4.0, "C0")]
    names, _, _ = drawn_names([NamedPoint(x, 0.4, 0.2, 0.6, name, colour) for name, x, colour in places])
    assert names == ["0.30, 0.55", "K=1", "0.95"]


def test_the_front_is_what_nobody_beats():
    points = [(2.0, 0.5), (1.0, 0.5), (3.0, 0.9), (1.0, 0.4), (4.0, 0.9), (5.0, 0.2), (1.0, 0.5)]
    assert pareto_front(points) == [1, 2]
    assert pareto_front([]) == []
    for index, (cost, success) in enumerate(points):
        beaten = any(c <= cost and s >= success and (c, s) != (cost, success) for c, s in points)
        assert beaten or points.index((cost, success)) != index or index in pareto_front(points)


def test_thinking_is_drawn_for_gated_settings_only(tmp_path):
    records = [
        EpisodeRecord("threshold_0.50", 0, 0, True, 8, [3, 1, 1], [12.0] * 3),
        EpisodeRecord("depth_5", 0, 0, False, 8, [5], [20.0]),
    ]
    gated, fixed = (summarise(s, records, {0: "x"}) for s in (ExitSetting(0.5), ExitSetting(fixed_depth=5)))
    assert not plot_thinking(tmp_path / "none.png", [fixed, summarise(ExitSetting(0.3), [], {})], "title")
    old = {name: value for name, value in gated.items() if name != "steps_by_phase"}
    assert not plot_thinking(tmp_path / "none.png", [old], "title")
    assert not (tmp_path / "none.png").exists()
    assert plot_thinking(tmp_path / "some.png", [gated, fixed], "title")
    picture = imageio.imread(tmp_path / "some.png")[..., :3].astype(int)
    # One curve and one task's point, in viridis' first colour.
    assert (np.abs(picture - [68, 1, 84]).sum(-1) < 20).sum() > 100


def test_weights_darken_and_glow_where_the_tokens_are():
    weights = np.array([[0.0, 1.0], [1.0, 2.0]], np.float32).ravel()
    drawn = draw_weights(np.full((64, 64, 3), 128, np.uint8), weights).astype(int)
    assert drawn[2, 2].tolist() == [32, 32, 32]
    assert drawn[2, 61].tolist() == drawn[61, 2].tolist() == [128, 128, 128]
    assert drawn[61, 61, 0] > 180
    assert drawn[61, 61, 2] < 70
    field = weight_field(np.zeros(16, np.float32), 100, crop=0.81)  # what is cut off is not weighed
    assert (field[:5] == 1).all()
    assert (field[5:95, 5:95] == 0).all()
    assert (field[:, 95:] == 1).all()
    with pytest.raises(InputError, match="3 visual tokens are no square grid"):
        weight_field(np.zeros(3, np.float32), 10)


def test_frames_show_the_other_cameras_the_weights_and_the_scores():
    frame = np.full((32, 32, 3), 100, np.uint8)
    weights = np.concatenate([np.zeros(4, np.float32), np.full(4, 2.0, np.float32)])
    film = Film(threshold=(0.5, 0.9))
    film.add([frame], 3, [0.25, 0.5, 1.0], weights, np.stack([frame, frame]))
    film.add([frame], 1, [0.6], None, None)
    shown = picture_of(film, 0, "a task").astype(int)
    assert shown.shape[1] == 2 * 384
    assert shown[200, 200].tolist() == [25, 25, 25]  # the scene counts nothing
    assert shown[200, 384 + 200, 0] > 150 > shown[200, 384 + 200, 2]  # the wrist twice
    orange = np.argwhere((shown[384:] == [255, 165, 0]).all(-1))
    blue = np.argwhere((shown[384:] == [70, 130, 180]).all(-1))
    assert np.ptp(orange[:, 0]) > np.ptp(blue[:, 0]) > 0  # the step that it left after scored highest
    assert picture_of(film, 1, "a task").shape[1] == 384
    assert len(picture_of(film, 1, "pick up " + 8 * "the black bowl and " + "stop")) > len(
        picture_of(film, 1, "a task")
    )
    with pytest.raises(InputError, match="1 gate scores of 2 latent steps"):
        film.add([frame], 2, [0.5])
