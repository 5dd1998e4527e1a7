"""What a machine is, in words that may be published: no names, no addresses."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> str:
    """Cores and model of the processor, memory, and the GPU if torch sees one: "2 x Intel Xeon, 8 GB, no GPU"."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpu = f"{gpus} x {torch.cuda.get_device_name(0)}" if gpus else "no GPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} x {processor()}, {memory:.0f} GB, {gpu}"


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Model of the processor, without trade marks; its architecture where the system does not say."""
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return " ".join(value.replace("(R)", "").replace("(TM)", "").split())
    return platform.processor() or platform.machine()
