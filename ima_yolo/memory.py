"""The largest use of memory so far, of this process or on a GPU."""

from __future__ import annotations

import torch

from ima_yolo.export import machine

MEBIBYTE = 2**20


def peak_memory(device: torch.device) -> float:
    """Largest use so far in MiB: of the process on a CPU, of PyTorch's allocations on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    return machine.peak_memory() / MEBIBYTE


def reset_peak(device: torch.device) -> None:
    """Let `peak_memory` begin anew from what is in use, on a GPU; a process's own peak on a CPU stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
