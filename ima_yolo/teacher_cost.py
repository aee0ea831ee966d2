"""What looking at a batch costs a teacher, as JSON: `python -m ima_yolo.teacher_cost TEACHER WEIGHTS SHAPE DEVICE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")

import torch

from ima_yolo.errors import IMAError, one_line
from ima_yolo.memory import peak_memory
from ima_yolo.teachers.load import load_teacher

LOOKS = 3  # after one to warm up


def cost(teacher: str, weights: str | None, shape: Sequence[int], device: torch.device) -> tuple[float, float]:
    """Measure a teacher in a process of its own, since memory that was used once does not show when used again.

    Args:
        teacher: As for `teacher=`.
        weights: As for `ima_teacher_weights=`.
        shape: Of a batch that it is shown, (B, C, H, W).
        device: Where.

    Returns:
        Milliseconds an image, and MiB: the peak of loading it and looking at a batch, over what was in use before.

    Raises:
        IMAError: If the process fails, for example for want of memory.
    """
    words = [sys.executable, "-m", "ima_yolo.teacher_cost", teacher, json.dumps(weights), json.dumps(list(shape))]
    done = subprocess.run([*words, str(device)], check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was ended"])[-1]
        raise IMAError(f"teacher={teacher}: its cost could not be measured ({last})")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["milliseconds"], found["mebibytes"]


def main(words: Sequence[str]) -> int:
    """Load the teacher, look a few times and print the figures."""
    name, weights, shape, device = words[0], json.loads(words[1]), json.loads(words[2]), torch.device(words[3])
    torch.zeros(1, device=device)  # what the device itself takes is not the teacher's
    before = peak_memory(device)
    try:
        teacher = load_teacher(name, weights).to(device)
        images, seconds = torch.rand(shape, device=device), []
        for _ in range(1 + LOOKS):
            start = time.perf_counter()
            teacher(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    except (IMAError, RuntimeError, MemoryError) as error:
        print(one_line(error), file=sys.stderr)  # noqa: T201
        return 1
    milliseconds = 1000 * median(seconds[1:]) / shape[0]
    print(json.dumps({"milliseconds": milliseconds, "mebibytes": peak_memory(device) - before}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
