"""What a machine is called in what is published."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from avavla_ray.hardware import describe_machine, processor


def test_the_processor_is_named_without_trade_marks(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: Intel(R) Xeon(R)  Gold 6226R CPU @ 2.90GHz\nmodel name : other\n")
    assert processor(path) == "Intel Xeon Gold 6226R CPU @ 2.90GHz"


@pytest.mark.parametrize("text", [None, "", "model name :\nCPU part : 0xd0c\n"])
def test_a_system_that_does_not_say_gives_its_architecture(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert processor(path)


def test_cores_memory_and_gpu_are_named_and_the_host_is_not() -> None:
    cores, _, rest = describe_machine().partition(" x ")
    assert int(cores) >= 1
    assert " GB, " in rest
    assert len(rest.split(", ")) >= 3
    assert socket.gethostname() not in rest or len(socket.gethostname()) < 4
