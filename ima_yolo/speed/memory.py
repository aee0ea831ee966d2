"""Peak memory of a training step, as JSON: `python -m ima_yolo.speed.memory CASE ARM DEVICE THREADS TEACHER`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from ima_yolo.speed.steps import Case, Step

STEPS = 3
MEBIBYTE = 2**20


def peak(case: Case, arm: str, device: torch.device, threads: int, teacher: Path) -> dict[str, float]:
    """Measure an arm in a process of its own.

    Args:
        case: Models and sizes.
        arm: One of `ima_yolo.speed.steps.ARMS`.
        device: Where.
        threads: Of PyTorch.
        teacher: Checkpoint of the teacher.

    Returns:
        MiB: "peak" of the process on a CPU or of PyTorch's allocations on a GPU, and "added" to what was there before
        the models were built.
    """
    words = [sys.executable, "-m", "ima_yolo.speed.memory", json.dumps(asdict(case)), arm, str(device), str(threads)]
    words.append(str(teacher))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _used(device: torch.device) -> float:
    """Largest use so far in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory as well, from before this program was loaded
        words = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()
        return float(words[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE  # bytes on macOS


def main(words: list[str]) -> None:
    """Run a few steps and print the peak."""
    options = json.loads(words[0])
    case = Case(**{**options, "settings": tuple((key, value) for key, value in options["settings"])})
    device = torch.device(words[2])
    torch.set_num_threads(int(words[3]))
    before = _used(device)
    step = Step(case, words[1], device, Path(words[4]))
    for _ in range(STEPS):
        step()
    after = _used(device)
    print(json.dumps({"peak": after, "added": after - before}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
