"""Which teacher suits a student: what can be seen before any training, from a few batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import BaseModel

from ima_yolo.align import standardize
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, same_size, tap
from ima_yolo.host import neck, probe
from ima_yolo.preflight import images_in
from ima_yolo.similarity import cells, divergence, linear_cka
from ima_yolo.students import load_student, task_of_kind
from ima_yolo.summary import measure
from ima_yolo.teachers.load import is_file, load_teacher
from ima_yolo.teachers.view import View, fit

HEADINGS = ("teacher", "mAP50-95", "CKA", "gap", "gap aligned", "ms/image", "MB")


@dataclass(frozen=True)
class Candidate:
    """What was seen of a teacher.

    Attributes:
        name: As it was given.
        accuracy: Its own mAP50-95 on the data, 0-1; None where it is no Ultralytics model of the task and classes.
        cka: Linear CKA of its maps with the student's, mean over levels, 0-1.
        gap: Jensen-Shannon divergence of the values of both, mean over levels, 0-1.
        gap_aligned: The same after instance standardization of both.
        milliseconds: Time of its forward pass for an image, on the device at hand.
        megabytes: Its weights.
        levels: Strides that it shares with the student.
    """

    name: str
    accuracy: float | None
    cka: float
    gap: float
    gap_aligned: float
    milliseconds: float
    megabytes: float
    levels: tuple[int, ...]


def rank(student: str, data: Path, candidates: Sequence[str], imgsz: int, limit: int = 32) -> list[Candidate]:
    """Look at every candidate and order them by likeness to the student, most alike first.

    Args:
        student: Checkpoint or architecture.
        data: The data set's YAML file.
        candidates: Names as for `teacher=`.
        imgsz: Side of the images in pixels.
        limit: How many images to look at.

    Raises:
        IMAError: If a candidate, the student or the data cannot be used.
    """
    model, kind = load_student(student)
    images = validation_images(data, imgsz, limit)
    found = [_look(model, task_of_kind(kind), data, name, images, imgsz) for name in candidates]
    return sorted(found, key=lambda candidate: -candidate.cka)


def validation_images(data: Path, imgsz: int, limit: int) -> Tensor:
    """Read validation images, spread evenly over the set and letterboxed to a square.

    Args:
        data: The data set's YAML file.
        imgsz: Side in pixels.
        limit: How many at most.

    Returns:
        (B, 3, imgsz, imgsz) RGB in [0, 1].

    Raises:
        IMAError: If the data has no images.
    """
    try:
        found = check_det_dataset(str(data), autodownload=False)
    except Exception as error:
        raise IMAError(f"data={data}: no data set that can be read") from error
    paths = list(images_in(found["val"]))
    chosen = paths[:: max(1, len(paths) // limit)][:limit]
    pictures = [LetterBox((imgsz, imgsz))(image=cv2.imread(str(path))) for path in chosen]
    if not pictures:
        raise IMAError(f"data={data}: no images for 'val'")
    stacked = np.stack(pictures)[..., ::-1].transpose(0, 3, 1, 2)  # (B, H, W, BGR) -> (B, RGB, H, W)
    return torch.from_numpy(np.ascontiguousarray(stacked)).float() / 255


@torch.no_grad()
def student_maps(student: BaseModel, images: Tensor) -> Features:
    """Return a student's neck maps of (B, 3, H, W) images, in evaluation."""
    head, levels = neck(student)
    with tap(head, levels, stop=True) as caught:
        student.eval()(images)
    return Features.of_image(caught.maps or [], images.shape[2])


def _look(student: BaseModel, task: str, data: Path, name: str, images: Tensor, imgsz: int) -> Candidate:
    teacher = load_teacher(name)
    view = fit(teacher, probe(student).strides)
    start = time.perf_counter()
    seen = view(images).features
    milliseconds = 1000 * (time.perf_counter() - start) / len(images)
    own = student_maps(student, images)
    pairs = [(own.at(stride), same_size(seen.at(stride), own.at(stride))) for stride in view.strides]
    cka = [linear_cka(cells(first), cells(second)) for first, second in pairs]
    gap = [divergence(first, second) for first, second in pairs]
    aligned = [divergence(standardize(first), standardize(second)) for first, second in pairs]
    mean = float(np.mean(cka)), float(np.mean(gap)), float(np.mean(aligned))
    accuracy = measure(Path(name), data, imgsz, name, task, workers=0).map50_95 if is_file(name) else None
    return Candidate(name, accuracy, *mean, milliseconds, _megabytes(view), view.strides)


def _megabytes(view: View) -> float:
    model: Any = getattr(view.teacher, "_model", None)
    if not isinstance(model, torch.nn.Module):
        return float("nan")
    return sum(value.numel() * value.element_size() for value in model.state_dict().values()) / 1e6


def table(found: Sequence[Candidate]) -> str:
    """The candidates as a Markdown table."""
    rows = [
        [
            candidate.name,
            "-" if candidate.accuracy is None else f"{candidate.accuracy:.3f}",
            f"{candidate.cka:.3f}",
            f"{candidate.gap:.3f}",
            f"{candidate.gap_aligned:.3f}",
            f"{candidate.milliseconds:.1f}",
            f"{candidate.megabytes:.1f}",
        ]
        for candidate in found
    ]
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot(found: Sequence[Candidate], output: Path) -> Path:
    """Draw likeness against accuracy, or against cost where no accuracy is known, and write it as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = all(candidate.accuracy is not None for candidate in found)
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    highest = 0.0
    for candidate in found:
        height = candidate.milliseconds if candidate.accuracy is None or not known else candidate.accuracy
        axes.plot(candidate.cka, height, "o", color="#1f77d0", markersize=8, clip_on=False, zorder=3)
        highest = max(highest, height)
        label = Path(candidate.name).stem if is_file(candidate.name) else candidate.name
        axes.annotate(
            label, (candidate.cka, height), xytext=(-6, 8), textcoords="offset points", ha="right", fontsize=9
        )
    axes.set_xlabel("likeness to the student (linear CKA)")
    axes.set_ylabel("accuracy on the data (mAP50-95)" if known else "cost (ms for an image)")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.2 * highest or 1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=150)
    pyplot.close(figure)
    return output
