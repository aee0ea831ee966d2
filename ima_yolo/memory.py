"""The largest use of memory so far, of this process or on a GPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

MEBIBYTE = 2**20


def peak_memory(device: torch.device) -> float:
    """Largest use so far in MiB: of the process on a CPU, of PyTorch's allocations on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory as well, from before this program was loaded
        words = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()
        return float(words[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / MEBIBYTE if sys.platform == "darwin" else used / 1024  # bytes on macOS, else KiB
