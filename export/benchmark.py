"""Measure a file: our runtime and Ultralytics' predictor in turns, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ima_yolo.errors import IMAError

from .machine import processor
from .metadata import GraphKind
from .runtime import Detector
from .session import cores

OURS, THEIRS = "ours", "ultralytics"
WORKERS = {OURS: "ima_yolo.export.bench_worker", THEIRS: "ima_yolo.export.bench_theirs"}
STARTS = 3
"""Cold starts measured of each side."""

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Cell:
    """One side's figures at one number of threads and one batch size.

    Attributes:
        threads: Threads within an operator; 0 for the default, one a core.
        batch: Pictures a call.
        side: "ours" or "ultralytics".
        latency: Milliseconds a call, by percentile.
        throughput: Pictures a second, median of the rounds.
        outside: Share of the time outside the ONNX session, median of the calls.
        before: Milliseconds a picture of preprocessing, median of the calls; as in `bench_worker.Parts`.
        after: Milliseconds a picture of postprocessing, likewise.
        rounds: Milliseconds a picture of each round.
    """

    threads: int
    batch: int
    side: str
    latency: dict[int, float]
    throughput: float
    outside: float
    before: float
    after: float
    rounds: list[float]


@dataclass
class Benchmark:
    """All figures of a run.

    Attributes:
        machine: Processor, cores, system and versions.
        files: The ONNX file of each side, with its size where they differ.
        imgsz: Height and width of the network input in pixels.
        cells: Latency and throughput.
        cold_start: Seconds from the start of the process to the first result, of each side, each time.
        memory: Peak resident bytes of each side after batch 1.
    """

    machine: dict[str, Any]
    files: dict[str, str]
    imgsz: tuple[int, int]
    cells: list[Cell] = field(default_factory=list)
    cold_start: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def ratio(self, threads: int, batch: int) -> float | None:
        """Our throughput over theirs: the median of `ratios`; None without the other side."""
        found = self.ratios(threads, batch)
        return float(np.median(found)) if found else None

    def ratios(self, threads: int, batch: int) -> list[float]:
        """Our throughput over theirs in each round, where both sides ran next to each other; [] without the other."""
        found = {c.side: c.rounds for c in self.cells if (c.threads, c.batch) == (threads, batch)}
        if len(found) < 2:
            return []
        return [float(value) for value in np.array(found[THEIRS]) / np.array(found[OURS])]

    def to_json(self) -> str:
        """All figures."""
        ratios = {f"threads {c.threads}, batch {c.batch}": self.ratio(c.threads, c.batch) for c in self.cells}
        return json.dumps({**asdict(self), "throughput_ratio": ratios}, indent=1) + "\n"


class _Worker:
    """A running side."""

    def __init__(self, side: str, setup: dict[str, Any]) -> None:
        self.side = side
        # Waiting threads of torch would otherwise hold a core while the other side is measured.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see close
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKERS[side], json.dumps(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.memory = self._read()["memory"]
        self.cold_start = time.perf_counter() - start

    def measure(self, batch: int, seconds: float) -> dict[str, list[float]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"batch": batch, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self.memory = answer["memory"]
        return answer

    def close(self) -> None:
        self._process.communicate()
        self._errors.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            last = last.removeprefix(f"{IMAError.__module__}.{IMAError.__name__}: ")
            raise IMAError(f"benchmark: the side {self.side!r} stopped ({last})")
        return json.loads(line)


def run_benchmark(
    model: Path,
    against: Path,
    images: Sequence[Path],
    threads: Sequence[int],
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    imgsz: int | Sequence[int] | None = None,
) -> Benchmark:
    """Measure both sides in alternating rounds; only ours where Ultralytics is not installed.

    Args:
        model: The file that our runtime runs.
        against: The file that Ultralytics' predictor runs, usually the same.
        images: Pictures to read, taken in turn.
        threads: Threads within an operator, 0 for the default.
        batches: Pictures a call.
        rounds: Rounds at each number of threads and batch size.
        seconds: Length of one side's part of a round.
        imgsz: Size of the network input, for files exported with dynamic=True; None for the file's own.

    Returns:
        The figures.

    Raises:
        IMAError: A file cannot be used, or a side failed.
    """
    detectors = {OURS: Detector(model, imgsz=imgsz), THEIRS: Detector(against, imgsz=imgsz)}
    files = {OURS: model, THEIRS: against}
    _check_tasks(detectors, files)
    sides = [side for side in WORKERS if side == OURS or find_spec("ultralytics")]
    setups = {
        side: {**_setup(files[side], detectors[side]), "images": [str(path) for path in images]} for side in sides
    }
    alike = len({detectors[side].imgsz for side in sides}) == 1
    told = {side: "" if alike else " at {}x{} px".format(*detectors[side].imgsz) for side in sides}
    named = {side: f"{files[side]}{told[side]}" for side in sides}
    result = Benchmark(describe_machine(), named, detectors[OURS].imgsz)
    _measure_starts(result, setups)
    for count in threads:
        with _workers({side: {**setup, "threads": count or None} for side, setup in setups.items()}) as workers:
            for batch in batches:
                result.cells += _measure_cell(workers, count, batch, rounds, seconds)
    return result


def _check_tasks(detectors: Mapping[str, Detector], files: Mapping[str, Path]) -> None:
    ours, theirs = (detectors[side].metadata.task for side in (OURS, THEIRS))
    if ours != theirs:
        raise IMAError(
            f"against={files[THEIRS]}: of task {theirs}, {files[OURS]} is of task {ours}; compare two of one task"
        )


def _setup(path: Path, detector: Detector) -> dict[str, Any]:
    meta = detector.metadata
    free = not all(isinstance(side, int) for side in detector.session.get_inputs()[0].shape)
    imgsz = {"imgsz": {"imgsz": list(detector.imgsz)}} if free else {}
    queries = meta.kind is GraphKind.QUERIES
    fixed = {"task": meta.task, "queries": queries, "channels": meta.channels}
    return {"model": str(path), "threads": None, **fixed, **imgsz}


def _measure_starts(result: Benchmark, setups: dict[str, dict[str, Any]]) -> None:
    """Cold start and memory; the first start of each side only fills the system's file cache."""
    for attempt in range(STARTS + 1):
        for side, setup in setups.items():
            with _workers({side: {**setup, "images": setup["images"][:1]}}) as workers:
                if attempt:
                    result.cold_start.setdefault(side, []).append(workers[side].cold_start)
                else:
                    workers[side].measure(1, 0.5)
                    result.memory[side] = workers[side].memory


@contextmanager
def _workers(setups: dict[str, dict[str, Any]]) -> Iterator[dict[str, _Worker]]:
    workers: dict[str, _Worker] = {}
    try:
        for side, setup in setups.items():
            workers[side] = _Worker(side, setup)
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def _measure_cell(workers: dict[str, _Worker], threads: int, batch: int, rounds: int, seconds: float) -> Iterator[Cell]:
    times: dict[str, list[dict[str, list[float]]]] = {side: [] for side in workers}
    for index in range(rounds):
        # Who comes first changes too, since a processor that has just worked is warm.
        for side in list(workers)[:: 1 if index % 2 else -1]:
            times[side].append(workers[side].measure(batch, seconds))
    for side, answers in times.items():
        total, before, inside, after = (
            np.concatenate([answer[part] for answer in answers]) for part in ("total", "before", "inside", "after")
        )
        each = [float(np.median(answer["total"])) / batch * 1e3 for answer in answers]
        latency = {q: float(np.percentile(total, q)) * 1e3 for q in PERCENTILES}
        outside = float(np.median(1 - inside / total))
        first, last = (float(np.median(part)) / batch * 1e3 for part in (before, after))
        yield Cell(threads, batch, side, latency, 1e3 / float(np.median(each)), outside, first, last, each)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load, system and versions."""
    versions = {}
    for package in ("onnxruntime", "numpy", "opencv-python", "opencv-python-headless", "ultralytics", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"processor": processor(), "cores": cores(), "load": load, "system": system, "versions": versions}
