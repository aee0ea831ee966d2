"""The other side of a benchmark: Ultralytics' predictor on an ONNX file. See `bench_worker`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .bench_worker import Parts, read_images, serve


def main(words: Sequence[str]) -> None:
    """Serve Ultralytics' predictor."""
    setup = json.loads(words[0])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ultralytics prints is no answer
    images = read_images(setup)
    model = _model(setup)

    def read(batch: Sequence[np.ndarray]) -> Parts:
        results = model.predict(list(batch), verbose=False, **setup.get("imgsz", {}))
        steps = ("preprocess", "inference", "postprocess")
        return Parts(*(float(sum(result.speed[step] for result in results)) / 1e3 for step in steps))

    if setup["threads"]:
        _limit_threads(model, setup, images[0])
    serve(read, images, sys.stdin, answers)


def _model(setup: dict[str, Any]) -> Any:
    from ultralytics import RTDETR, YOLO

    return (RTDETR if setup["queries"] else YOLO)(setup["model"], task=setup["task"])


def _limit_threads(model: Any, setup: dict[str, Any], image: np.ndarray) -> None:
    """Give the predictor a session with the same number of threads; it has no setting for it."""
    import onnxruntime as ort
    import torch

    torch.set_num_threads(setup["threads"])
    model.predict(image, verbose=False, **setup.get("imgsz", {}))
    options = ort.SessionOptions()
    options.intra_op_num_threads = setup["threads"]
    session = ort.InferenceSession(setup["model"], options, providers=["CPUExecutionProvider"])
    model.predictor.model.backend.session = session


if __name__ == "__main__":
    main(sys.argv[1:])
