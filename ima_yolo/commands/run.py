"""`ima-yolo val`, `predict` and `export`: what is done with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ima_yolo.commands.options import faults_of_the_user, load_safely, no_bare_words, switches
from ima_yolo.errors import IMAError


def val(options: dict[str, Any]) -> int:
    """Validate a model with Ultralytics' own validator."""
    load_safely()
    options = no_bare_words(options, switches())
    model = _model_of(options)
    _checked_keys(options)
    from ultralytics import YOLO

    with faults_of_the_user():
        yolo = YOLO(model)
        _check_data(options, str(yolo.task))
        yolo.val(**options)
    return 0


def predict(options: dict[str, Any]) -> int:
    """Detect in images: an .onnx model with our runtime, without torch, anything else with Ultralytics."""
    model = _model_of(options)
    if model.endswith(".onnx"):
        options = no_bare_words(options)
        from ima_yolo.export.predict import run

        return run(model, options.pop("source", None), **options)
    load_safely()
    options = no_bare_words(options, switches())
    _checked_keys(options)
    from ultralytics import YOLO

    with faults_of_the_user():
        # Ultralytics prints and saves as the results go by. Where it takes this process for its own command, since its
        # name ends in "yolo" as well, it has done so already and returns nothing.
        for _ in YOLO(model).predict(**{"save": True, **options, "stream": True}) or ():
            pass
    return 0


def export(options: dict[str, Any]) -> int:
    """Export a model; ONNX is compared with torch before the file is put in place."""
    load_safely()
    options = no_bare_words(options, switches())
    model = _model_of(options)
    form, output, images = (
        str(options.pop("format", "onnx")).lower(),
        options.pop("output", None),
        options.pop("images", None),
    )
    _checked_keys(options)
    if form == "onnx":
        from ima_yolo.export.onnx import export_onnx
        from ima_yolo.export.sources import find_images

        chosen = None if images is None else find_images(str(images))
        export_onnx(model, None if output is None else Path(str(output)), chosen, **options)
        return 0
    from ultralytics import YOLO

    with faults_of_the_user():
        YOLO(model).export(format=form, **options)
    print(f"format={form} was exported by Ultralytics; only ONNX is compared with torch")
    return 0


def _model_of(options: dict[str, Any]) -> str:
    """Take the model out of the options.

    Raises:
        IMAError: If it is missing, or neither here nor among the checkpoints that Ultralytics publishes.
    """
    model = str(options.pop("model", None) or "")
    if not model:
        raise IMAError("model= is missing: give a .pt or .onnx file")
    if not Path(model).exists() and (model.endswith(".onnx") or not _is_checkpoint(model)):
        raise IMAError(f"model={model}: no such file")
    return model


def _is_checkpoint(name: str) -> bool:
    """Whether a name that is no path is a checkpoint in Ultralytics' folder, or one that it publishes ("yolo26n")."""
    load_safely()
    from ultralytics.utils.checks import check_model_file_from_stem

    from ima_yolo.host import can_be_had

    return can_be_had(str(check_model_file_from_stem(name)))


def _checked_keys(options: dict[str, Any]) -> None:
    from ima_yolo.config import own_keys
    from ima_yolo.preflight import check_keys

    if training := sorted(own_keys() & options.keys()):
        raise IMAError(f"'{training[0]}' is a setting of `ima-yolo train` alone")
    check_keys(options)


def _check_data(options: dict[str, Any], task: str) -> None:
    """Look for the data before Ultralytics makes a folder for results."""
    from ultralytics.data.utils import check_det_dataset

    if options.get("data") and task != "classify":
        check_det_dataset(str(options["data"]), split=options.get("split") or "val")
