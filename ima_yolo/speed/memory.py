"""Peak memory of a training step, as JSON: `python -m ima_yolo.speed.memory CASE ARM DEVICE THREADS TEACHER`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from ima_yolo.errors import IMAError, one_line
from ima_yolo.memory import peak_memory, reset_peak
from ima_yolo.speed.case import Case
from ima_yolo.speed.steps import Step

STEPS = 3


def peak(case: Case, arm: str, device: torch.device, threads: int, teacher: Path) -> dict[str, float]:
    """Measure an arm in a process of its own.

    Args:
        case: Models and sizes.
        arm: One of `ima_yolo.speed.case.ARMS`.
        device: Where.
        threads: Of PyTorch.
        teacher: Checkpoint of the teacher.

    Returns:
        MiB: "peak" of the process on a CPU or of PyTorch's allocations on a GPU, and "added" to what was there before
        the models were built.

    Raises:
        IMAError: If the process fails, with its last line.
    """
    words = [sys.executable, "-m", "ima_yolo.speed.memory", json.dumps(asdict(case)), arm, str(device), str(threads)]
    words.append(str(teacher))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        last = last.replace(str(teacher), case.teacher)  # as it was named, not a copy of it
        raise IMAError(f"{case.name}: the step called '{arm}' cannot be run ({one_line(last)})")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(words: list[str]) -> None:
    """Run a few steps, the optimizer's state among what they keep, and print the peak."""
    options = json.loads(words[0])
    case = Case(**{**options, "settings": tuple((key, value) for key, value in options["settings"])})
    device = torch.device(words[2])
    torch.set_num_threads(int(words[3]))
    before = peak_memory(device)
    step = Step(case, words[1], device, Path(words[4]))
    reset_peak(device)  # building is no step: the built-in looks at images of its own there
    step.warm_up()
    for _ in range(STEPS - 1):
        step()
    after = peak_memory(device)
    print(json.dumps({"peak": after, "added": after - before}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
