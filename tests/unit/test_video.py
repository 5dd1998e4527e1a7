"""Video files: each frame at its own time, whoever wrote the file; damage is told, never covered up."""

from __future__ import annotations

from pathlib import Path

import imageio.v2 as imageio
import pytest

from avavla_ray.demonstrations.video import VideoEncoder, decode_frames
from avavla_ray.errors import InputError
from tests.support.numbered_pictures import number_of, numbered

FPS, FRAMES = 30, 120


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
        times, found = decode_frames(path, (first - 0.5) / FPS, (first + count - 0.5) / FPS, number_of)
        assert found == list(range(first, first + count))
        assert times.tolist() == pytest.approx([number / FPS for number in found], abs=1e-9)


def test_nothing_is_shown_after_the_end(tmp_path):
    times, found = decode_frames(write_ours(tmp_path / "film.mp4"), (FRAMES - 2.5) / FPS, FRAMES * 2 / FPS, number_of)
    assert found == [FRAMES - 2, FRAMES - 1]
    assert len(times) == 2


def test_a_damaged_part_is_told_and_the_rest_still_shown(tmp_path):
    path = write_ours(tmp_path / "film.mp4")
    content = bytearray(path.read_bytes())
    begin = content.find(b"mdat") + 4
    middle = (begin + len(content)) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    assert decode_frames(path, 0, 10 / FPS, number_of)[1] == list(range(10))
    with pytest.raises(InputError, match=r"^not readable: film.mp4 from 0.00 to 4.00 s: "):
        decode_frames(path, 0, FRAMES / FPS, number_of)


def test_half_a_file_holds_half_its_frames_or_none(tmp_path):
    path = write_ours(tmp_path / "film.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not readable: film.mp4"):
        decode_frames(path, 0, FRAMES / FPS, number_of)
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match="not readable: film.mp4"):
        decode_frames(path, 0, 1, number_of)
    with pytest.raises(InputError, match="missing: .*absent.mp4"):
        decode_frames(tmp_path / "absent.mp4", 0, 1, number_of)


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
