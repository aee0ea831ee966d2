"""`ima-yolo val` and `predict`: what is done with a trained model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ima_yolo.commands.options import (
    checked_keys,
    faults_of_the_user,
    is_onnx,
    is_pt,
    leaving_nothing,
    load_safely,
    model_of,
    no_bare_words,
    opened,
    switches,
    with_recipe,
)
from ima_yolo.errors import SECRET, IMAError
from ima_yolo.plain_files import check_addresses, check_source

MAX_PIXELS = 2**28
"""Larger pictures are refused on the command line: decoded, this many take 0.8 GB."""

QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
"""What OpenCV would print about a damaged file comes beside our own line about it."""


def val(options: dict[str, Any]) -> int:
    """Validate a model with Ultralytics' own validator."""
    load_safely()
    options = with_recipe(no_bare_words(options, switches()))
    model = model_of(options)
    checked_keys(options)
    with faults_of_the_user():
        yolo = opened(model)
        _check_data(options, model, str(yolo.task), str(yolo.overrides.get("data") or ""))
        with leaving_nothing("val", str(yolo.task), options):
            yolo.val(**options)
    return 0


def predict(options: dict[str, Any]) -> int:
    """Detect in images: an .onnx model with our runtime, without torch, anything else with Ultralytics."""
    options = with_recipe(options)
    model = model_of(options)
    for key, value in QUIET.items():  # OpenCV reads these once, when it is loaded
        os.environ.setdefault(key, value)
    if is_onnx(model):
        # by itself it decodes pictures of up to 3 GB
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
        from ima_yolo.export.predict import SWITCHES, run

        options = no_bare_words(options, SWITCHES)
        return run(model, options.pop("source", None), **options)
    load_safely()
    options = no_bare_words(options, switches())
    checked_keys(options)
    given = options.get("source")
    for source in given if isinstance(given, (list, tuple)) else [given]:
        check_source(str(source))
        if _is_fetched(str(source)):
            check_addresses({"source": source})
    with faults_of_the_user(), _hidden_passwords():
        # Ultralytics prints and saves as the results go by. Where it takes this process for its own command, since its
        # name ends in "yolo" as well, it has done so already and returns nothing.
        yolo = opened(model)
        _check_embed(options.get("embed"), yolo.model)
        yolo.add_callback("on_predict_start", _check_names)
        with leaving_nothing("predict", str(yolo.task), options):
            for _ in yolo.predict(**{"save": True, **options, "stream": True}) or ():
                pass
    return 0


def _is_fetched(source: str) -> bool:
    """Whether an address is that of a file, which Ultralytics fetches, saying where from; others are streams."""
    from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS

    is_address = source.lower().startswith(("http://", "https://"))
    return is_address and urlsplit(source.lower()).path.rpartition(".")[-1] in IMG_FORMATS | VID_FORMATS


def _check_names(predictor: Any) -> None:
    """Refuse classes that the model does not have, of any format: what it has is known once it is loaded."""
    from ima_yolo.ranges import check_classes

    check_classes(predictor.args.classes, len(predictor.model.names), "model")


def _check_embed(layers: Any, network: Any) -> None:
    """Refuse layers that a checkpoint does not have, of which Ultralytics gives nothing and says nothing."""
    most = len(getattr(network, "model", ())) - 1  # of an exported file there is no network
    if most < 0 or layers is None:
        return
    if not isinstance(layers, (list, tuple)) or not all(type(one) is int and 0 <= one <= most for one in layers):
        raise IMAError(f"embed={layers}: expected a list of the model's layers, which are 0 to {most}")


@contextmanager
def _hidden_passwords() -> Iterator[None]:
    """Keep the passwords of cameras out of what Ultralytics prints, and out of the names of the files it writes."""
    from ultralytics.utils import LOGGER, ops

    def hide(record: logging.LogRecord) -> bool:
        record.msg, record.args = SECRET.sub("***", record.getMessage()), None
        return True

    named = ops.clean_str  # which makes the name of a stream's files of its address
    LOGGER.addFilter(hide)
    ops.clean_str = lambda address: named(SECRET.sub("***", address))
    try:
        yield
    finally:
        LOGGER.removeFilter(hide)
        ops.clean_str = named


def _check_data(options: dict[str, Any], model: str, task: str, own: str) -> None:
    """Look for the data before Ultralytics makes a folder for results.

    Args:
        options: Of which `data` may be missing.
        model: The file.
        task: Its task.
        own: Data that the file names; whoever sent it chose that, so none of it is fetched, nor a script in it run.

    Raises:
        IMAError: If there is none, or it cannot be used.
    """
    from ima_yolo.data_set import check_class_folder, class_folder, converted, is_converted, read_data_set
    from ima_yolo.ranges import check_classes

    named = str(options.get("data") or "")
    is_checkpoint = is_pt(model) or not (Path(model).suffix or Path(model).is_dir())
    data = named or (own if is_checkpoint else "")
    if not data:
        kind = "this checkpoint" if is_checkpoint else "an exported model"
        raise IMAError(f"data= is missing: {kind} does not say what it was trained on")
    split = str(options.get("split") or "val")
    fetched = "://" in data or is_converted(data)
    # which Ultralytics reads whatever the task
    is_here = task == "classify" and class_folder(data) is not None
    described = task != "classify" or (data.lower().endswith((".yaml", ".yml")) and not is_here)
    if not named and (fetched or not (described or is_here)):
        raise IMAError(f"model={model}: it would fetch its data; if that is yours, add data={data}")
    if fetched:
        data = options["data"] = converted(data, options.get("fraction", 1.0), split)
        described = not Path(data).is_dir()
    if described:
        found = read_data_set(data, split, fetch=bool(named))
        check_classes(options.get("classes"), len(found["names"]))  # Ultralytics finds nothing of those, and is content
    else:
        check_class_folder(data)
