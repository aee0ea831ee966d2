"""One side of a benchmark, in a process of its own: reads pictures as often as it is told, and reports the times.

The parent starts `python -m ima_yolo.export.bench_worker JSON` and gets a line as soon as the first result is there;
each request line that follows is answered by a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from .machine import peak_memory
from .postprocess import Thresholds
from .runtime import Detector
from .sources import need_image

WARM_UP = 3
"""Calls before the first that counts, for each batch size."""

Reader = Callable[[Sequence[np.ndarray]], float]
"""Looks into a batch and gives the seconds spent inside the ONNX session."""


def main(words: Sequence[str]) -> None:
    """Serve our runtime."""
    setup = json.loads(words[0])
    images = read_images(setup)
    detector, thresholds = Detector(setup["model"], setup["threads"], **setup.get("imgsz", {})), Thresholds()

    def read(batch: Sequence[np.ndarray]) -> float:
        blob, places = detector.prepare(batch)
        start = time.perf_counter()
        outputs = detector.infer(blob)
        inside = time.perf_counter() - start
        detector.read(outputs, places, thresholds)
        return inside

    # A file for a fixed batch takes no more at a time.
    most = detector.session.get_inputs()[0].shape[0]
    serve(_in_parts(read, most) if isinstance(most, int) else read, images, sys.stdin, sys.stdout)


def _in_parts(read: Reader, most: int) -> Reader:
    return lambda batch: sum(read(batch[start : start + most]) for start in range(0, len(batch), most))


def read_images(setup: dict[str, Any]) -> list[np.ndarray]:
    """The pictures of the setup, with as many threads for OpenCV as for everything else."""
    if setup["threads"]:
        cv2.setNumThreads(setup["threads"])
    return [need_image(Path(path), setup["channels"]) for path in setup["images"]]


def serve(read: Reader, images: Sequence[np.ndarray], requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more.

    A request {"batch": B, "seconds": S} is answered by {"total": [...], "inside": [...]}: seconds of each call, and
    those of them inside the session.
    """
    read(images[:1])
    _answer(answers, {"memory": peak_memory()})
    warm = set()
    for line in requests:
        request = json.loads(line)
        size = request["batch"]
        batch = [images[index % len(images)] for index in range(size)]
        for _ in range(0 if size in warm else WARM_UP):
            read(batch)
        warm.add(size)
        times = _measure(read, images, size, request["seconds"])
        _answer(answers, {**times, "memory": peak_memory()})


def _measure(read: Reader, images: Sequence[np.ndarray], size: int, seconds: float) -> dict[str, list[float]]:
    total: list[float] = []
    inside: list[float] = []
    while sum(total) < seconds or len(total) < WARM_UP:
        first = len(total) * size
        batch = [images[(first + index) % len(images)] for index in range(size)]
        start = time.perf_counter()
        inside.append(read(batch))
        total.append(time.perf_counter() - start)
    return {"total": total, "inside": inside}


def _answer(answers: IO[str], content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
