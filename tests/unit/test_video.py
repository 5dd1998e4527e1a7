"""Video files: each frame at its own time, whoever wrote the file; damage is told, never covered up."""

from __future__ import annotations

import contextlib
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from avavla_ray.demonstrations import video
from avavla_ray.demonstrations.video import VideoEncoder, decode_frames, join_videos
from avavla_ray.errors import InputError
from tests.support.numbered_pictures import number_of, numbered

FPS, FRAMES = 30, 120


def show(path: Path, first: int, count: int) -> list[int]:
    """Numbers of the frames shown when these should be."""
    return decode_frames(path, np.arange(first, first + count) / FPS, 0.25 / FPS, number_of)


def write_ours(path: Path) -> Path:
    encoder = VideoEncoder(path, 32, 32, FPS)
    for number in range(FRAMES):
        encoder.add(numbered(number))
    encoder.close()
    return path


def write_foreign(path: Path, codec: str, *options: str) -> Path:
    """As other programs write: frames that depend on later ones, seconds between key frames."""
    with imageio.get_writer(
        path, format="FFMPEG", fps=FPS, codec=codec, macro_block_size=2, output_params=list(options)
    ) as writer:
        for number in range(FRAMES):
            writer.append_data(numbered(number))
    return path


@pytest.mark.parametrize(
    "write",
    [
        write_ours,
        lambda path: write_foreign(path, "libx264", "-g", "250", "-bf", "3"),
        lambda path: write_foreign(path, "libsvtav1", "-g", "2", "-svtav1-params", "lp=1"),
    ],
    ids=["ours", "h264", "av1"],
)
def test_frames_are_those_of_their_times(tmp_path, write):
    path = write(tmp_path / "film.mp4")
    for first, count in ((0, 5), (1, 1), (37, 40), (FRAMES - 3, 3)):
        assert show(path, first, count) == list(range(first, first + count))
    some = np.array([3, 4, 9, 50])
    assert decode_frames(path, some / FPS + 0.004, 0.005, number_of) == some.tolist()


def test_frames_that_are_not_there_are_told(tmp_path):
    path = write_ours(tmp_path / "film.mp4")
    with pytest.raises(InputError, match=r"^wrong number of frames: film.mp4 has none at 4.000 s"):
        show(path, FRAMES - 2, 3)
    with pytest.raises(InputError, match=r"^wrong number of frames: film.mp4 has none at 0.317 s"):
        decode_frames(path, np.array([9, 9.5, 10]) / FPS, 0.005, number_of)
    with pytest.raises(InputError, match="^not consistent: a frame of film.mp4 belongs to several steps"):
        decode_frames(path, np.array([9, 9.01, 10]) / FPS, 0.005, number_of)
    with pytest.raises(InputError, match="^missing: .*absent.mp4"):
        show(tmp_path / "absent.mp4", 0, 1)


def test_damage_is_told_and_the_frames_around_it_still_shown(tmp_path):
    path = write_ours(tmp_path / "film.mp4")
    content = bytearray(path.read_bytes())
    begin, end = content.find(b"mdat") + 4, content.find(b"moov") - 4
    middle = (begin + end) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)

    def broken(number: int) -> bool:
        with contextlib.suppress(InputError):
            return show(path, number, 1) != [number]
        return True

    # A key frame is never two frames away.
    around = [number for number in range(FRAMES // 2 - 14, FRAMES // 2 + 8) if broken(number)]
    assert 1 <= len(around) <= 4, around
    assert show(path, 0, around[0]) == list(range(around[0]))
    after = around[-1] + 1
    assert show(path, after, FRAMES - after) == list(range(after, FRAMES))
    with pytest.raises(InputError, match="^not readable: film.mp4 at "):
        show(path, 0, FRAMES)


def test_a_file_that_is_cut_short(tmp_path):
    path = write_ours(tmp_path / "film.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="^not readable: film.mp4 at 0.000 s: moov atom not found"):
        show(path, 0, FRAMES)
    path.write_bytes(content)
    join_videos([path], tmp_path / "index_first.mp4")
    content = (tmp_path / "index_first.mp4").read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    assert show(path, 0, 10) == list(range(10))
    with pytest.raises(InputError, match="^(not readable|wrong number of frames): film.mp4"):
        show(path, 0, FRAMES)


def test_lists_of_other_files_are_no_videos(tmp_path):
    other, path = write_ours(tmp_path / "other.mp4"), tmp_path / "film.mp4"
    for content in (
        "ffconcat version 1.0\nfile other.mp4\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{other}\n#EXT-X-ENDLIST\n",
    ):
        path.write_text(content)
        with pytest.raises(InputError, match="^not readable: film.mp4 at 0.000 s: "):
            show(path, 0, 3)


def test_a_folder_whose_name_looks_like_an_address(tmp_path, monkeypatch):
    (tmp_path / "http:").mkdir()
    write_ours(tmp_path / "http:" / "film.mp4")
    monkeypatch.chdir(tmp_path)
    assert show(Path("http:/film.mp4"), 5, 3) == [5, 6, 7]


def test_frames_of_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = write_ours(tmp_path / "film.mp4")
    monkeypatch.setattr(video, "MOST_PIXELS", 32 * 32 - 1)
    with pytest.raises(InputError, match="^not readable: film.mp4 at 0.000 s: Picture size 32x32 exceeds"):
        show(path, 0, 3)


def test_what_cannot_be_encoded_is_told(tmp_path):
    with pytest.raises(InputError, match="33 x 32 pixels: yuv420p video needs even sizes"):
        VideoEncoder(tmp_path / "film.mp4", 33, 32, FPS)
    encoder = VideoEncoder(tmp_path / "no folder" / "film.mp4", 32, 32, FPS)
    with pytest.raises(InputError, match=r"film.mp4 cannot be encoded: .*No such file"):
        for number in range(FRAMES):
            encoder.add(numbered(number))
        encoder.close()
    encoder = VideoEncoder(tmp_path / "film.mp4", 32, 32, FPS)
    with pytest.raises(InputError, match="a picture of uint8"):
        encoder.add(numbered(0, size=16))
    encoder.abort()
