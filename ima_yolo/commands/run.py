"""`ima-yolo val` and `predict`: what is done with a trained model."""

from __future__ import annotations

import os
from typing import Any

from ima_yolo.commands.options import checked_keys, faults_of_the_user, load_safely, model_of, no_bare_words

MAX_PIXELS = 2**28
"""Larger pictures are refused on the command line: decoded, this many take 0.8 GB."""


def val(options: dict[str, Any]) -> int:
    """Validate a model with Ultralytics' own validator."""
    load_safely()
    options = no_bare_words(options)
    model = model_of(options)
    checked_keys(options)
    from ultralytics import YOLO

    with faults_of_the_user():
        YOLO(model).val(**options)
    return 0


def predict(options: dict[str, Any]) -> int:
    """Detect in images: an .onnx model with our runtime, without torch, anything else with Ultralytics."""
    options = no_bare_words(options)
    model = model_of(options)
    if model.endswith(".onnx"):
        # OpenCV reads this once, when it is loaded; by itself it decodes pictures of up to 3 GB.
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
        from ima_yolo.export.predict import run

        return run(model, options.pop("source", None), **options)
    load_safely()
    checked_keys(options)
    from ultralytics import YOLO

    with faults_of_the_user():
        for _ in YOLO(model).predict(**{"save": True, **options, "stream": True}):
            pass  # Ultralytics prints and saves as the results go by
    return 0
