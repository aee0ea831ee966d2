"""The summary table at the end of a run: accuracy, size and speed of teacher and students."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

_HEADINGS = ("model", "mAP50-95", "mAP50", "parameters", "GFLOPs", "ms/image")
_ROUNDS, _PASSES = 6, 6  # the first pass of a model in a round warms up


@dataclass(frozen=True)
class Row:
    """One model of the table; None means not known and is printed as "-".

    Attributes:
        name: what the reader calls the model.
        map50_95: mean average precision over IoU 0.50 to 0.95, 0-1.
        map50: mean average precision at IoU 0.50, 0-1.
        parameters: number of weights as deployed, that is with batch norms folded in and training-only heads removed.
        gflops: billions of floating point operations for one image at the image size measured.
        milliseconds_per_image: time of the network alone, without reading, letterboxing and NMS.
        timing: how the time was taken, for the heading: device and batch size.
        imgsz: side in pixels of the images that the GFLOPs are counted for.
        note: a footnote.
        miou: mean intersection over union of the classes' pixels, 0-1; of semantic models alone.
    """

    name: str
    map50_95: float | None = None
    map50: float | None = None
    parameters: int | None = None
    gflops: float | None = None
    milliseconds_per_image: float | None = None
    timing: str = ""
    imgsz: int | None = None
    note: str = ""
    miou: float | None = None


_METRIC = {"detect": "box", "segment": "seg", "pose": "pose", "obb": "box"}  # what a task's mAP is taken over


def _accuracy(model: Any, task: str, data: Path, imgsz: int, val_kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a `Row` says of accuracy, by the Ultralytics validator, which leaves no folder behind."""
    from ima_yolo.host import unhurried_nms

    with tempfile.TemporaryDirectory() as folder, unhurried_nms():
        # Rectangular batches pad differently for torch and for an exported file, which would compare unlike things.
        place = {"project": folder, "name": "val", "plots": False, "verbose": False, "rect": False}
        found = model.val(data=str(data), imgsz=imgsz, **{**place, **val_kwargs})
    if task == "semantic":
        note = f"mIoU {found.miou:.3f}, pixel accuracy {found.pixel_accuracy:.3f}"
        return {"note": note, "miou": float(found.miou)}
    metric = getattr(found, _METRIC[task])
    note = {"segment": "mAP of the masks", "pose": "mAP of the keypoints"}.get(task, "")
    return {"map50_95": float(metric.map), "map50": float(metric.map50), "note": note}


def _milliseconds(backends: Sequence[Any], imgsz: int) -> list[float]:
    """Median time of one forward pass of one image (1, C, imgsz, imgsz) in milliseconds, for each model.

    The models take turns, so that what else runs on the machine slows one as much as the other.
    """
    import torch
    from ultralytics.utils.ops import Profile

    images = []
    for backend in backends:
        height, width = getattr(backend, "imgsz", None) or (imgsz, imgsz)  # an exported model may take one size only
        images.append(torch.zeros(1, getattr(backend, "channels", 3), height, width, device=backend.device))
    times: list[list[float]] = [[] for _ in backends]
    with torch.inference_mode():
        for turn in range(1 + _ROUNDS):
            for backend, image, taken in zip(backends, images, times, strict=True):
                for number in range(_PASSES):
                    with Profile(device=backend.device) as profile:
                        backend(image)
                    if turn and number:
                        taken.append(1000 * profile.dt)
    return [median(taken) for taken in times]


def _size(backend: Any, imgsz: int) -> tuple[int | None, float | None]:
    """Parameters and GFLOPs of a fused torch model; neither for an exported one."""
    import torch
    from ultralytics.utils.torch_utils import get_flops, get_num_params

    network = getattr(backend.backend, "model", None)
    if not isinstance(network, torch.nn.Module):
        return None, None
    return get_num_params(network), get_flops(network, imgsz) or None


def measure(model_path: Path, data: Path, imgsz: int, name: str, task: str = "detect", **val_kwargs: Any) -> Row:
    """Measure one model, as `measure_all` does."""
    return measure_all({name: model_path}, data, imgsz, task, **val_kwargs)[0]


def measure_all(
    models: Mapping[str, Path], data: Path, imgsz: int, task: str = "detect", **val_kwargs: Any
) -> list[Row]:
    """Measure models: accuracy by the Ultralytics validator, size, and the time of the network alone at batch 1.

    The times are taken apart from the validation, as medians of 30 passes in six rounds in which each model has its
    turn, because the validator's own figure depends on its batch size and on how full its last batch is.

    Args:
        models: checkpoints or exported models that Ultralytics can load, by the names of their rows.
        data: the data.yaml; its val split counts, or `split=`. Where its class names are not a model's the accuracy
            is None and the row says so in its note.
        imgsz: side of the images in pixels.
        task: the task that the data is labelled for; of a model for another one the accuracy is not measured.
        **val_kwargs: further arguments of `yolo val`, for instance device, batch, workers, classes or single_cls.
    """
    from ultralytics import YOLO
    from ultralytics.nn.autobackend import AutoBackend
    from ultralytics.utils.torch_utils import select_device

    device = select_device(val_kwargs.get("device") or "", verbose=False)
    backends, rows = [], []
    for name, path in models.items():
        model, backend = YOLO(str(path), task=task), AutoBackend(str(path), device=device, verbose=False)
        parameters, gflops = _size(backend, imgsz)
        note = _not_comparable(backend, task, data, bool(val_kwargs.get("single_cls")))
        accuracy: dict[str, Any] = {"note": note} if note else _accuracy(model, task, data, imgsz, val_kwargs)
        rows.append(Row(name, parameters=parameters, gflops=gflops, imgsz=imgsz, **accuracy))
        backends.append(backend)
    times = _milliseconds(backends, imgsz)
    timing = f"{device.type}, batch 1"
    return [replace(row, milliseconds_per_image=time, timing=timing) for row, time in zip(rows, times, strict=True)]


def _not_comparable(backend: Any, task: str, data: Path, single_cls: bool) -> str:
    """Why a model cannot be validated for a task on the data; empty if it can."""
    from ultralytics.data.utils import add_polygon_background, check_det_dataset

    own = getattr(backend, "task", None) or getattr(getattr(backend.backend, "model", None), "task", None) or "detect"
    if own != task:
        kind = {"detect": "as a detector "}.get(task, f"for {task} ")
        return f"is a model for {own}, so its accuracy {kind}was not measured"
    found = check_det_dataset(str(data), autodownload=False)
    if backend.channels != found["channels"]:
        return f"takes {backend.channels} channels, the data has {found['channels']}, so its accuracy was not measured"
    if single_cls:  # the validator then counts every object and every detection as one class
        return ""
    names = (add_polygon_background(found) if task == "semantic" else found)["names"]
    if list(names.values()) != list(backend.names.values()):
        return "has other class names than the data, so its accuracy was not measured"
    return ""


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cells(rows: Sequence[Row]) -> tuple[list[list[str]], list[str]]:
    """The table as text, headings first, and its footnotes."""
    timings = list(dict.fromkeys(row.timing for row in rows if row.milliseconds_per_image is not None and row.timing))
    sizes = {row.imgsz for row in rows if row.gflops is not None}
    gflops = _HEADINGS[-2] + (f" ({next(iter(sizes))} px)" if len(sizes) == 1 and None not in sizes else "")
    lines = [[*_HEADINGS[:-2], gflops, _HEADINGS[-1] + (f" ({timings[0]})" if len(timings) == 1 else "")]]
    footnotes: list[str] = []
    for row in rows:
        notes = [row.note] if row.note else []
        if len(timings) > 1 and row.timing in timings:
            notes.append(f"time: {row.timing}")
        name = row.name
        for note in notes:
            if note not in footnotes:
                footnotes.append(note)
            name += f" [{footnotes.index(note) + 1}]"
        accuracy = [_number(row.map50_95, 3), _number(row.map50, 3)]
        cost = [_count(row.parameters), _number(row.gflops, 2), _number(row.milliseconds_per_image, 1)]
        lines.append([name, *accuracy, *cost])
    return lines, [f"[{index}] {note}" for index, note in enumerate(footnotes, 1)]


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text for a terminal, names to the left, numbers to the right, footnotes below."""
    lines, footnotes = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    text = []
    for name, *numbers in lines:
        right = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        text.append("  ".join([name.ljust(widths[0]), *right]))
    return "\n".join([*text, *footnotes])


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, footnotes below."""
    lines, footnotes = _cells(rows)
    lines.insert(1, ["---", *["---:"] * (len(_HEADINGS) - 1)])
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*text, *([""] if footnotes else []), *footnotes])
