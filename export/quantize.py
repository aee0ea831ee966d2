"""Int8 export: calibrated on the user's data, with as many layers kept in float as the accuracy asks for."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from ultralytics import RTDETR, YOLO
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError
from ima_yolo.host import unhurried_nms

from .metadata import GraphKind, Metadata
from .preprocess import Letterbox
from .quantize_graph import METHODS, Plan, calibrate, quantized
from .session import open_session, session_metadata
from .sources import need_image

PROBES = 8
"""Pictures on which each layer's error is measured."""

BLOCKS, WARM, TIMED = 4, 3, 10
"""For a file's latency: how often its turn comes, and each time runs that do not count and runs that do."""


@dataclass(frozen=True)
class QuantizeOptions:
    """What a user may choose. Checked when made.

    Attributes:
        data: Data set (.yaml): its training pictures calibrate, its validation pictures measure.
        calibration: percentile, entropy or minmax.
        percentile: With percentile: share of the values inside the range, in percent.
        calibration_images: Training pictures to calibrate on.
        max_loss: Largest loss of mAP50-95 that is accepted, 0 to 1; layers go back to float until it is kept.
    """

    data: str
    calibration: str = "percentile"
    percentile: float = 99.999
    calibration_images: int = 64
    max_loss: float = 0.005

    def __post_init__(self) -> None:
        """Refuse values that cannot be used.

        Raises:
            IMAError: Naming the key, its value and what was expected.
        """
        if not self.data:
            raise IMAError("quantize=8 needs data=, the data set whose pictures calibrate and measure the int8 file")
        if self.calibration not in METHODS:
            raise IMAError(f"calibration={self.calibration}: expected one of {', '.join(METHODS)}")
        if type(self.calibration_images) is not int or self.calibration_images < 1:
            raise IMAError(f"calibration_images={self.calibration_images}: expected a whole number above 0")
        for key, high in (("percentile", 100), ("max_loss", 1)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high:
                raise IMAError(f"{key}={value!r}: expected a number from 0 to {high}")


@dataclass(frozen=True)
class Figures:
    """Of one file: bytes, accuracy and milliseconds of the session at batch 1."""

    size: int
    accuracy: float
    latency: float


@dataclass(frozen=True)
class QuantizeReport:
    """What was written.

    Attributes:
        path: The int8 file.
        metric: What accuracy means.
        before: The float file's figures.
        after: The int8 file's.
        in_float: Layers kept in float.
        layers: Layers that could be quantized.
    """

    path: Path
    metric: str
    before: Figures
    after: Figures
    in_float: tuple[str, ...]
    layers: int

    def table(self) -> str:
        """The figures in Markdown."""
        rows = [f"| file | MB | {self.metric} | ms an image (session, batch 1) |", "|---|---:|---:|---:|"]
        for name, figures in (("float", self.before), ("int8", self.after)):
            rows.append(f"| {name} | {figures.size / 1e6:.1f} | {figures.accuracy:.4f} | {figures.latency:.1f} |")
        kept = f"{len(self.in_float)} of {self.layers} layers kept in float"
        return "\n".join([*rows, kept + (f": {', '.join(self.in_float)}" if self.in_float else "")])


def quantize_onnx(model: Path, target: Path, options: QuantizeOptions) -> QuantizeReport:
    """Write an int8 copy of a float file.

    Args:
        model: The float ONNX file; it is not changed.
        target: The file to write; a report of the same name with .json goes beside it.
        options: See `QuantizeOptions`.

    Returns:
        The report.

    Raises:
        IMAError: The file or the data cannot be used.
    """
    session = open_session(model)
    metadata = session_metadata(session, str(model))
    _check_float(session, metadata, model)
    blobs = _calibration_inputs(options, metadata)
    plan = Plan.of(onnx.load(str(model)))
    if not plan.layers:
        raise IMAError(f"model={model}: has no convolutions to quantize")
    LOGGER.info(f"Calibrating on {len(blobs)} pictures ({options.calibration})")
    ranges = calibrate(model, blobs, options.calibration, plan.nodes(), options.percentile)
    metric, before = accuracy_of(model, metadata, options.data)
    if before <= options.max_loss:
        LOGGER.warning(
            f"The float file's {metric} is {before:.4f}, no larger than max_loss={options.max_loss}: a loss within it "
            "proves nothing"
        )
    with tempfile.TemporaryDirectory(prefix=".ima-quantize-", dir=target.parent) as name:
        candidate = Path(name) / "candidate.onnx"

        def build(in_float: Sequence[str]) -> onnx.ModelProto:
            return _marked(quantized(model, ranges, plan.nodes(in_float)), metadata)

        def loss_of(in_float: Sequence[str]) -> float:
            onnx.save(build(in_float), str(candidate))
            return before - accuracy_of(candidate, metadata, options.data)[1]

        def rank() -> list[str]:
            return rank_layers(model, build, plan, blobs[:PROBES])

        in_float, loss = keep_in_float(loss_of, rank, options.max_loss, len(plan.layers))
        figures = session_times([model, candidate], blobs[0])
        report = QuantizeReport(
            target,
            metric,
            Figures(model.stat().st_size, before, figures[0]),
            Figures(candidate.stat().st_size, before - loss, figures[1]),
            tuple(in_float),
            len(plan.layers),
        )
        os.replace(candidate, target)
    content = {**asdict(report), "path": target.name, "options": asdict(options)}
    target.with_suffix(".json").write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    LOGGER.info(f"int8: {target}\n{report.table()}")
    return report


def keep_in_float(
    loss_of: Callable[[Sequence[str]], float], rank: Callable[[], list[str]], limit: float, count: int
) -> tuple[list[str], float]:
    """Find how many of the most sensitive layers must stay in float: 0, 1, 2, 4, 8 and so on until the loss is kept.

    Args:
        loss_of: Layers in float -> loss of accuracy.
        rank: Gives the layers, most sensitive first; called only if it is needed.
        limit: Largest loss that is accepted.
        count: Number of layers; at least one of them is quantized.

    Returns:
        The layers in float and the loss.

    Raises:
        IMAError: The loss is larger with every layer but one in float.
    """
    loss = loss_of([])
    if loss <= limit:
        return [], loss
    ranked, kept = rank(), 1
    while True:
        kept = min(kept, count - 1)
        loss = loss_of(ranked[:kept])
        LOGGER.info(f"{kept} layers in float: loss {loss:.4f}")
        if loss <= limit:
            return ranked[:kept], loss
        if kept == count - 1:
            raise IMAError(f"quantize=8: with all layers but one in float the loss is {loss:.4f}, max_loss={limit}")
        kept *= 2


def rank_layers(
    model: Path, build: Callable[[Sequence[str]], onnx.ModelProto], plan: Plan, blobs: Sequence[np.ndarray]
) -> list[str]:
    """Sort layers by the error that quantizing each of them alone makes in the outputs, largest first."""
    expected = _outputs(open_session(model), blobs)
    scales = [np.abs(output).mean(axis=(0, -1), keepdims=True) + 1e-9 for output in expected]
    errors = {}
    for layer in plan.layers:
        others = [name for name in plan.layers if name != layer]
        found = _outputs(open_session(build(others).SerializeToString()), blobs)
        gaps = (np.abs(a - b) / scale for a, b, scale in zip(found, expected, scales, strict=True))
        errors[layer] = sum(float(gap.mean()) for gap in gaps)
    return sorted(errors, key=lambda layer: -errors[layer])


def _outputs(session: ort.InferenceSession, blobs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs on several inputs, each (len(blobs), ...)."""
    name = session.get_inputs()[0].name
    runs = [session.run(None, {name: blob}) for blob in blobs]
    return [np.concatenate([run[index] for run in runs]).astype(np.float32) for index in range(len(runs[0]))]


def _check_float(session: ort.InferenceSession, metadata: Metadata, model: Path) -> None:
    entry = session.get_inputs()[0]
    if entry.type != "tensor(float)" or metadata.args.get("quantize") in (8, 16):
        raise IMAError(f"model={model}: expected a float32 file to quantize, export it without quantize=")
    if entry.shape[0] != 1 and isinstance(entry.shape[0], int):
        raise IMAError(
            f"model={model}: made for batches of {entry.shape[0]}, quantize one with batch=1 or dynamic=True"
        )


def _calibration_inputs(options: QuantizeOptions, metadata: Metadata) -> list[np.ndarray]:
    """Training pictures, spread evenly over the set, as network inputs."""
    from ultralytics.data.utils import add_polygon_background

    from ima_yolo.data_set import images_in, read_data_set

    found = read_data_set(options.data, "val")
    files = list(images_in(found["train"]))
    if found["channels"] != metadata.channels:
        raise IMAError(f"data={options.data}: has {found['channels']} channels, the model takes {metadata.channels}")
    classes = len((add_polygon_background(found) if metadata.task == "semantic" else found)["names"])
    if classes != len(metadata.names):
        raise IMAError(f"data={options.data}: has {classes} classes, the model has {len(metadata.names)}")
    step = max(1, len(files) // options.calibration_images)
    images = [need_image(file, metadata.channels) for file in files[::step][: options.calibration_images]]
    if not images:
        raise IMAError(f"data={options.data}: no training pictures to calibrate on")
    fit = Letterbox.stretch if metadata.kind is GraphKind.QUERIES else Letterbox.fit
    return [fit((image.shape[0], image.shape[1]), metadata.imgsz).blob(image) for image in images]


def accuracy_of(path: Path, metadata: Metadata, data: str) -> tuple[str, float]:
    """What Ultralytics' validator calls a file's accuracy, and the figure.

    Args:
        path: The ONNX file.
        metadata: Its metadata.
        data: Data set (.yaml), whose validation pictures are looked at.

    Returns:
        The figure's name, such as "mAP50-95(B)", and its value, 0 to 1.
    """
    level = LOGGER.level
    LOGGER.setLevel("WARNING")
    try:
        model = (RTDETR if metadata.kind is GraphKind.QUERIES else YOLO)(path, task=metadata.task)
        with tempfile.TemporaryDirectory() as folder, unhurried_nms():
            keys: dict[str, Any] = {"plots": False, "verbose": False, "workers": 0, "project": folder}
            figures = model.val(data=data, imgsz=max(metadata.imgsz), batch=1, **keys).results_dict
    finally:
        LOGGER.setLevel(level)
    # Of masks and keypoints after that of boxes, where the task has them.
    name = [key for key in figures if "mAP50-95" in key or "mIoU" in key][-1]
    return name.split("/")[-1], float(figures[name])


def _marked(proto: onnx.ModelProto, metadata: Metadata) -> onnx.ModelProto:
    """Say in the metadata that the file is int8."""
    for entry in proto.metadata_props:
        if entry.key == "args":
            entry.value = str({**metadata.args, "quantize": 8})
    return proto


def session_times(files: Sequence[Path], blob: np.ndarray, threads: int | None = None) -> list[float]:
    """Median milliseconds of each file's session, in alternating blocks of runs.

    One session is open at a time: the threads of another would go on looking for work, on the cores of this one.

    Args:
        files: ONNX files of one input.
        blob: That input, (1, C, H, W) float32.
        threads: As in `open_session`.
    """
    times: list[list[float]] = [[] for _ in files]
    for _ in range(BLOCKS):
        for path, found in zip(files, times, strict=True):
            session = open_session(path, threads)
            name = session.get_inputs()[0].name
            for number in range(WARM + TIMED):
                start = time.perf_counter()
                session.run(None, {name: blob})
                if number >= WARM:
                    found.append((time.perf_counter() - start) * 1e3)
            del session
    return [float(np.median(found)) for found in times]
