"""`ima-yolo export`: a trained model becomes a file for the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ima_yolo.commands.options import (
    checked_keys,
    faults_of_the_user,
    is_onnx,
    load_safely,
    model_of,
    no_bare_words,
    opened,
    switches,
    with_recipe,
)
from ima_yolo.errors import IMAError, nearest

QUANTIZE_KEYS = ("calibration", "percentile", "calibration_images", "max_loss")
OWN_KEYS = ("output", "images", "kit", *QUANTIZE_KEYS)
OTHER_WORDS = (
    *("tensorrt", "trt", "mlmodel", "mlpackage", "mlprogram", "apple", "ios"),
    *("huawei", "cann", "om", "vitis", "vitisai", "versal", "tflite", "tfjs"),
)
"""Names of formats that Ultralytics takes beside those that it lists."""


@dataclass(frozen=True)
class _Order:
    """What is to be made of which model, and where."""

    model: Path
    output: Path | None
    images: list[Path] | None
    args: dict[str, Any]
    quantize: dict[str, Any] | None
    kit: bool


def export(options: dict[str, Any]) -> int:
    """Export a model; ONNX is compared with torch before the file is put in place."""
    load_safely()
    options = with_recipe(no_bare_words(options, switches()))
    model = model_of(options)
    form = str(options.pop("format", "onnx")).lower()
    if form != "onnx":
        _check_format(form)
        return _export_with_ultralytics(model, form, options)
    order = _read(model, options)
    path = _write(order)
    if order.kit:
        from ima_yolo.export.kit import write_kit

        print(f"kit {write_kit(path, order.images)}")
    return 0


def _check_format(form: str) -> None:
    """Refuse a misspelt format: Ultralytics would guess, and export past our comparison or fetch data for it."""
    from ultralytics.engine.exporter import export_formats

    known = [*export_formats()["Argument"][1:], *OTHER_WORDS]  # the first is a .pt file itself
    if form not in known:
        raise IMAError(f"format={form}: there is no such format{nearest(form, known)}")


def _read(model: str, options: dict[str, Any]) -> _Order:
    """Take our keys out of the options and check the rest."""
    from ima_yolo.export.settings import asks_for_int8, check_int8_alone
    from ima_yolo.export.sources import find_images

    output, images, kit = (options.pop(key, None) for key in ("output", "images", "kit"))
    if kit not in (None, True, False):
        raise IMAError(f"kit={kit}: expected True or False")
    quantize = None
    chosen = {key: options.pop(key) for key in QUANTIZE_KEYS if key in options}
    if asks_for_int8(options):
        check_int8_alone(options)
        for key in ("quantize", "int8", "half"):
            options.pop(key, None)
        quantize = {"data": str(options.pop("data", None) or ""), **chosen}
        if options.get("batch", 1) != 1 and not options.get("dynamic"):
            raise IMAError(f"batch={options['batch']} with quantize=8: expected 1, or dynamic=True")
    elif chosen:
        raise IMAError(f"{next(iter(chosen))}= belongs to quantize=8")
    checked_keys(options, OWN_KEYS)
    foreign = [*options, *(["images"] if images is not None and not kit else [])]
    if is_onnx(model) and foreign:
        raise IMAError(f"{foreign[0]}= belongs to the export of a .pt model; {model} is exported")
    if is_onnx(model) and kit and output is not None and quantize is None:
        raise IMAError(f"output={output}: the kit of an .onnx file is written beside it; leave output= out")
    chosen_images = None if images is None else find_images(str(images), "images")
    return _Order(
        Path(model), None if output is None else Path(str(output)), chosen_images, options, quantize, bool(kit)
    )


def _write(order: _Order) -> Path:
    """Write the float or the int8 file and give its path."""
    from ima_yolo.export.kit import free_folder
    from ima_yolo.export.settings import find_target

    exported = is_onnx(order.model.name)
    int8 = order.model.with_name(f"{order.model.stem}_int8.onnx")
    made = order.model if order.quantize is None else int8
    target = made if exported and order.quantize is None else find_target(made, order.output)
    if order.kit:
        free_folder(target)  # before the work of an export is done
    if order.quantize is None:
        if exported and not order.kit:
            raise IMAError(f"model={order.model} is exported already; use quantize=8 or kit=True")
        if exported:
            return order.model
        from ima_yolo.export.onnx import export_onnx

        return export_onnx(order.model, order.output, order.images, **order.args).path
    from ima_yolo.export.quantize import QuantizeOptions, quantize_onnx

    options = QuantizeOptions(**order.quantize)
    if exported:
        with faults_of_the_user():
            return quantize_onnx(order.model, target, options).path
    from ima_yolo.data_set import read_data_set
    from ima_yolo.export.onnx import export_onnx

    read_data_set(options.data, "val")  # before the work of an export is done

    with TemporaryDirectory() as folder, faults_of_the_user():
        graph = export_onnx(order.model, Path(folder), order.images, **order.args).path
        return quantize_onnx(graph, target, options).path


def _export_with_ultralytics(model: str, form: str, options: dict[str, Any]) -> int:
    for key in ("output", "images"):
        options.pop(key, None)
    if options.pop("kit", False):
        raise IMAError(f"kit=True with format={form}: a kit holds an ONNX file")
    checked_keys(options, OWN_KEYS)
    if data := str(options.get("data") or ""):
        from ima_yolo.data_set import read_data_set

        read_data_set(data, str(options.get("split") or "val"))
    with faults_of_the_user():
        opened(model).export(format=form, **options)
    print(f"format={form} was exported by Ultralytics; only ONNX is compared with torch")
    return 0
