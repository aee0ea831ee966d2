"""`ima-yolo benchmark`: how fast is a file on this machine?"""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ima_yolo.commands.options import folder_to_write, is_onnx, no_bare_words
from ima_yolo.errors import IMAError, nearest

KEYS = ("model", "against", "source", "imgsz", "threads", "batch", "rounds", "seconds", "output")

MOST_PICTURES = 64
"""Pictures read from a folder, spread evenly over it: each side holds all of them in memory."""


def benchmark(options: dict[str, Any]) -> int:
    """Measure an ONNX file with our runtime and, where it is installed, with Ultralytics' predictor in turns."""
    words = list(options.get("", []))
    if "train" in words:
        from ima_yolo.commands.benchmark_train import benchmark_train

        words.remove("train")
        return benchmark_train(no_bare_words({**options, "": words}))
    options = no_bare_words(options)
    if options.get("device") == "cpu":  # a habit of `yolo benchmark`, and what happens anyway
        del options["device"]
    for key in options:
        if key not in KEYS:
            raise IMAError(f"'{key}' is not a setting of benchmark{nearest(key, KEYS)}; it takes {', '.join(KEYS)}")
    model = _file(options, "model", None)
    against = _file(options, "against", model)
    from ima_yolo.export.machine import MOST_THREADS

    threads, batches = _numbers(options, "threads", 0, 0, MOST_THREADS), _numbers(options, "batch", 1, 1)
    rounds, seconds = options.get("rounds", 7), options.get("seconds", 1.0)
    if not isinstance(rounds, int) or rounds < 1:
        raise IMAError(f"rounds={rounds}: expected a whole number above 0")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 3600:
        raise IMAError(f"seconds={seconds}: expected a number above 0")
    output = folder_to_write(options.get("output") or "runs/benchmark")
    from ima_yolo.export.bench_report import plot, table
    from ima_yolo.export.benchmark import run_benchmark
    from ima_yolo.export.samples import sample_images
    from ima_yolo.export.session import channels_of
    from ima_yolo.export.sources import find_images

    source = options.get("source")
    with TemporaryDirectory() as folder:
        drawn = source is None
        images = sample_images(Path(folder), channels_of(model)) if drawn else find_images(str(source))
        images = images[:: -(-len(images) // MOST_PICTURES)]
        result = run_benchmark(model, against, images, threads, batches, rounds, float(seconds), options.get("imgsz"))
    output.mkdir(parents=True, exist_ok=True)
    text = table(result)
    (output / "benchmark.md").write_text(text + "\n", encoding="utf-8")
    (output / "benchmark.json").write_text(result.to_json(), encoding="utf-8")
    picture = plot(result, output / "benchmark.png")
    print(f"{text}\n\nResults saved to {output}" + ("" if picture else "; no plot, matplotlib is not installed"))
    return 0


def _file(options: dict[str, Any], key: str, default: Path | None) -> Path:
    value = options.get(key, default)
    if value is None:
        raise IMAError(f"{key}= is missing: give an .onnx file")
    path = Path(str(value))
    if not is_onnx(path.name) or not path.is_file():
        raise IMAError(f"{key}={path}: " + ("no such file" if is_onnx(path.name) else "expected an .onnx file"))
    return path


def _numbers(options: dict[str, Any], key: str, default: int, least: int, most: float = math.inf) -> list[int]:
    value = options.get(key, default)
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if not numbers or not all(type(number) is int and least <= number <= most for number in numbers):
        end = "up" if most == math.inf else f"to {most}"
        raise IMAError(f"{key}={value}: expected whole numbers from {least} {end}, such as {key}=1,2")
    return numbers
