"""Video files through the ffmpeg that imageio-ffmpeg ships: frames by their time in, frames in order out."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np

from avavla_ray.errors import InputError

T = TypeVar("T")
# showinfo names a stream's time base before its frames; pts_time itself is rounded to six digits.
_TIMES = re.compile(r"config in time_base: (?P<over>\d+)/(?P<under>\d+)|\bn: *\d+ pts: *(?P<pts>-?\d+)")
MOST_PIXELS = 2**24  # of a picture: far more than cameras have, and far less than a few bytes can unpack to
_EXACT_COLOUR = "scale=flags=bicubic+accurate_rnd+full_chroma_int"


class Encoding(NamedTuple):
    """How `VideoEncoder` compresses. H.264 plays everywhere and encodes fast on CPUs; a key frame at every other frame
    keeps random access cheap."""

    codec: str = "h264"
    pixels: str = "yuv420p"
    quality: int = 14  # x264's constant rate factor: lower is better, 18 passes for visually lossless
    key_frames: int = 2
    preset: str = "medium"


ENCODING = Encoding()


def _ffmpeg() -> list[str]:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise InputError("video files need imageio-ffmpeg: pip install '.[libero]'") from None
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostats"]


def _complaint(log: str) -> str:
    """ffmpeg's first error."""
    errors = [line for line in log.splitlines() if "[error]" in line or "[fatal]" in line]
    return re.sub(r"\[[^]]*\] ?", "", errors[0]).strip() if errors else "no reason given"


def decode_frames(path: Path, times: np.ndarray, tolerance: float, convert: Callable[[np.ndarray], T]) -> list[T]:
    """The frames that a video shows at `times`; only their part of the file is read.

    Args:
        times: (N,) seconds of the video, ascending.
        tolerance: seconds that a frame may be off its time; less than half a frame.
        convert: what to keep of a frame, (H, W, 3) uint8: called as they are decoded, so that none has to stay.

    Raises:
        InputError: "sort: particulars"; no such file, no video, or a part that is damaged or without such frames.
    """
    if not path.is_file():
        raise InputError(f"missing: {path}")
    start, end = times[0] - tolerance, times[-1] + tolerance
    shown, frames, complaint = _decode(path, start, end, convert)
    found = np.searchsorted(shown, times - tolerance)
    inside = found < len(shown)
    inside[inside] = shown[found[inside]] <= times[inside] + tolerance
    if not inside.all():
        missing = times[int(inside.argmin())]
        if complaint:
            raise InputError(f"not readable: {path.name} at {missing:.3f} s: {complaint}")
        raise InputError(f"wrong number of frames: {path.name} has none at {missing:.3f} s")
    if len(set(found)) < len(found):
        raise InputError(f"not consistent: a frame of {path.name} belongs to several steps")
    return [frames[index] for index in found]


def _decode(
    path: Path, start: float, end: float, convert: Callable[[np.ndarray], T]
) -> tuple[np.ndarray, list[T], str | None]:
    """Times (N,) float64 and frames shown in [start, end), up to what ffmpeg complains about, if anything.

    One process cuts out the packets, another decodes them: a decoder runs ahead of what is asked of it, and would
    stumble over damage that is none of these frames'.
    """
    seek = ["-seek_timestamp", "1", "-ss", f"{start:.6f}"] if start > 0 else []
    cut = [
        *_ffmpeg(), "-nostdin", "-loglevel", "level+error", "-copyts", *seek,
        # ffmpeg would guess the format from the content, and some formats are lists of other files and addresses.
        "-f", "mov", "-protocol_whitelist", "file", "-max_pixels", str(MOST_PIXELS), "-i", f"file:{path}",
        "-map", "0:v:0", "-c", "copy", "-copypriorss", "1", "-to", f"{end:.6f}", "-avoid_negative_ts", "disabled",
        "-f", "nut", "pipe:1",
    ]  # fmt: skip
    decode = [
        *_ffmpeg(), "-loglevel", "level+info", "-xerror", "-threads", "1", "-copyts",
        "-max_pixels", str(MOST_PIXELS), "-f", "nut", "-i", "pipe:0",
        "-vf", f"trim=start={start:.6f}:end={end:.6f},showinfo=checksum=0,{_EXACT_COLOUR}",
        "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "pipe:1",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as said:
        with (
            subprocess.Popen(cut, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as cutter,
            subprocess.Popen(decode, stdin=cutter.stdout, stdout=subprocess.PIPE, stderr=said) as decoder,
        ):
            assert cutter.stdout is not None
            assert decoder.stdout is not None
            cutter.stdout.close()  # the decoder's now
            frames = [convert(frame) for frame in _pictures(decoder.stdout)]
        first, log = (_text(stream) for stream in (errors, said))
    times = np.array(_times(log))
    # showinfo sees a frame before it is handed out.
    complaint = _complaint(first + log) if cutter.returncode or decoder.returncode else None
    return times[: len(frames)], frames, complaint


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _pictures(stream: IO[bytes]) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 of each whole binary PPM in a stream."""
    while stream.readline() == b"P6\n":
        width, height = map(int, stream.readline().split())
        stream.readline()
        data = stream.read(width * height * 3)
        if len(data) < width * height * 3:
            return
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _times(log: str) -> list[float]:
    base, times = 0.0, []
    for found in _TIMES.finditer(log):
        if found["pts"] is None:
            base = int(found["over"]) / int(found["under"])
        else:
            times.append(int(found["pts"]) * base)
    return times


def join_videos(pieces: Sequence[Path], path: Path) -> None:
    """Write the frames of videos that were encoded alike one after the other, as they are.

    Raises:
        InputError: ffmpeg cannot write (no space left).
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
        for piece in pieces:
            quoted = str(piece.resolve()).replace("'", r"'\''")
            listing.write(f"file '{quoted}'\n")
        listing.flush()
        command = [
            *_ffmpeg(), "-y", "-nostdin", "-loglevel", "level+error", "-f", "concat", "-safe", "0",
            "-i", listing.name, "-c", "copy", "-movflags", "+faststart", str(path),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise InputError(f"{path} cannot be written: {_complaint(done.stderr)}")


class VideoEncoder:
    """Writes an MP4 of one picture every 1/fps seconds, the first at 0. Close it to finish the file.

    Raises:
        InputError: the pictures' size is odd, or ffmpeg cannot write (no space left).
    """

    def __init__(self, path: Path, width: int, height: int, fps: int, encoding: Encoding = ENCODING) -> None:
        if width % 2 or height % 2:
            raise InputError(f"pictures of {width} x {height} pixels: {encoding.pixels} video needs even sizes")
        self._path, self._shape = path, (height, width, 3)
        command = [
            *_ffmpeg(), "-y", "-loglevel", "level+error", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{width}x{height}", "-framerate", str(fps), "-i", "pipe:0", "-vf", _EXACT_COLOUR,
            # Without B-frames a frame's number is its place in the file as well.
            "-c:v", "libx264", "-pix_fmt", encoding.pixels, "-crf", str(encoding.quality), "-preset", encoding.preset,
            "-g", str(encoding.key_frames), "-bf", "0", str(path),
        ]  # fmt: skip
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors)

    def add(self, pixels: np.ndarray) -> None:
        """Append a picture, (H, W, 3) uint8."""
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise InputError(f"a picture of {pixels.dtype} {pixels.shape} in a video of uint8 {self._shape}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pixels.tobytes())
        except BrokenPipeError:
            self._fail()

    def close(self) -> None:
        """Finish the file."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._fail()
        if self._process.wait():
            self._fail()
        self._errors.close()

    def abort(self) -> None:
        """End without caring for the file."""
        assert self._process.stdin is not None
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # what was not written yet goes nowhere
            self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _fail(self) -> None:
        self._process.wait()
        log = _text(self._errors)
        self.abort()
        raise InputError(f"{self._path} cannot be encoded: {_complaint(log)}")
