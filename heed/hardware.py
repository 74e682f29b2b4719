"""What a run computes on, by the name that people know it by."""

import os
import platform
from functools import cache
from pathlib import Path

import torch

CPU_FACTS = Path("/proc/cpuinfo")


def describe(device: torch.device) -> str:
    """As "NVIDIA H100 80GB HBM3" or "AMD EPYC 9R14, 4 cores"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    return f"{cpu_name()}, {len(cores())} cores"


@cache  # asked in every step
def cpu_name() -> str:
    lines = CPU_FACTS.read_text(errors="replace").splitlines() if CPU_FACTS.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def cores() -> list[int]:
    """Those that this process may use."""
    return list(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
