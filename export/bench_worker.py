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
from typing import IO, Any, NamedTuple

import cv2
import numpy as np

from .machine import peak_memory
from .postprocess import Thresholds
from .runtime import Detector
from .sources import need_image

WARM_UP = 3
"""Calls before the first that counts, for each batch size."""

Reader = Callable[[Sequence[np.ndarray]], "Parts"]
"""Looks into a batch and tells where the time went."""


class Parts(NamedTuple):
    """Seconds of one call: before the ONNX session, inside it, after it.

    With several runs at the same time, inside is when at least one of them was in the session; before and after are
    summed over the pictures and may lie within it.
    """

    before: float
    inside: float
    after: float


class _Timed(Detector):
    """A detector that keeps when each of its parts began and ended."""

    spans: dict[str, list[tuple[float, float]]]

    def prepare(self, *args: Any) -> Any:
        return self._keep("before", super().prepare, args)

    def infer(self, *args: Any) -> Any:
        return self._keep("inside", super().infer, args)

    def read(self, *args: Any) -> Any:
        return self._keep("after", super().read, args)

    def _keep(self, part: str, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        start = time.perf_counter()
        result = work(*args)
        self.spans[part].append((start, time.perf_counter()))
        return result


def main(words: Sequence[str]) -> None:
    """Serve our runtime."""
    setup = json.loads(words[0])
    images = read_images(setup)
    detector, thresholds = _Timed(setup["model"], setup["threads"], **setup.get("imgsz", {})), Thresholds()

    def read(batch: Sequence[np.ndarray]) -> Parts:
        detector.spans = {part: [] for part in Parts._fields}
        detector.detect(batch, thresholds)
        before, after = (sum(end - start for start, end in detector.spans[part]) for part in ("before", "after"))
        return Parts(before, covered(detector.spans["inside"]), after)

    serve(read, images, sys.stdin, sys.stdout)


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length that spans of start and end cover together."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, until), 0.0)
        until = max(until, end)
    return total


def read_images(setup: dict[str, Any]) -> list[np.ndarray]:
    """The pictures of the setup, with as many threads for OpenCV as for everything else."""
    if setup["threads"]:
        cv2.setNumThreads(setup["threads"])
    return [need_image(Path(path), setup["channels"]) for path in setup["images"]]


def serve(read: Reader, images: Sequence[np.ndarray], requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more.

    A request {"batch": B, "seconds": S} is answered by {"total": [...], "before": [...], "inside": [...], "after":
    [...]}: seconds of each call, and its `Parts`.
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
    parts: list[Parts] = []
    while sum(total) < seconds or len(total) < WARM_UP:
        first = len(total) * size
        batch = [images[(first + index) % len(images)] for index in range(size)]
        start = time.perf_counter()
        parts.append(read(batch))
        total.append(time.perf_counter() - start)
    columns = (list(column) for column in zip(*parts, strict=True))
    return {"total": total, **dict(zip(Parts._fields, columns, strict=True))}


def _answer(answers: IO[str], content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
