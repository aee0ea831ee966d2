"""Which teacher suits a student: what can be seen before any training, from a few batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.data.augment import LetterBox
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils.torch_utils import select_device

from ima_yolo.align import standardize
from ima_yolo.data_set import images_in, read_data_set, read_image
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, same_size, tap
from ima_yolo.host import batch_norms, neck, probe
from ima_yolo.similarity import cells, divergence, linear_cka
from ima_yolo.students import load_student, task_of_kind
from ima_yolo.summary import measure
from ima_yolo.teacher_cost import cost
from ima_yolo.teachers import Teacher
from ima_yolo.teachers.load import is_file, load_teacher
from ima_yolo.teachers.view import Input, View, fit

HEADINGS = ("CKA", "gap", "gap aligned", "ms/image", "MiB")
BATCH = 8  # images that a network is shown at a time
CELLS = 256  # cells of each map that are compared: all of them would not fit into memory at a high resolution


@dataclass(frozen=True)
class Candidate:
    """What was seen of a teacher.

    Attributes:
        name: As it was given.
        accuracy: Its own on the data, 0-1: mAP50-95, or mIoU for semantic models; None where it is no Ultralytics model
            of the task and classes.
        note: Why there is no accuracy, or what else the validation says; empty where there is nothing to say.
        cka: Linear CKA of its maps with the student's, mean over levels, 0-1.
        gap: Jensen-Shannon divergence of the values of both, mean over levels, 0-1.
        gap_aligned: The same after instance standardization of both.
        milliseconds: Time of its forward pass for an image, in batches, on the device at hand.
        mebibytes: Peak of the memory that it takes, weights and a batch.
        levels: Strides that it shares with the student.
    """

    name: str
    accuracy: float | None
    note: str
    cka: float
    gap: float
    gap_aligned: float
    milliseconds: float
    mebibytes: float
    levels: tuple[int, ...]
    metric: str = "mAP50-95"


def rank(
    student: str,
    data: Path,
    candidates: Sequence[str],
    imgsz: int,
    limit: int = 32,
    weights: Sequence[str | None] | None = None,
    shown: Input | None = None,
) -> list[Candidate]:
    """Look at every candidate and order them by their own accuracy, the others after them by likeness to the student.

    Of five teachers on one data set the accuracy foretold the student's, while likeness did not: the figures are in the
    README, and `benchmarks/ranking.py` finds them for other data.

    Args:
        student: Checkpoint or architecture.
        data: The data set's YAML file.
        candidates: Names as for `teacher=`.
        imgsz: Side of the images in pixels.
        limit: How many images to look at.
        weights: Of each candidate, as for `ima_teacher_weights=`; None for those of its own, or random ones.
        shown: How images are made for the candidates; as they are if None.

    Raises:
        IMAError: If a candidate, the student or the data cannot be used.
    """
    images = validation_images(data, imgsz, limit)
    model, kind = load_student(student, images.shape[1])
    if _is_untrained(model):
        settle(model, images)
    own, shown = weights or [None] * len(candidates), shown or Input()
    # all are loaded before the first is measured: a misspelt one should not cost the time of the others
    loaded = [(name, given, load_teacher(name, given)) for name, given in zip(candidates, own, strict=True)]
    task = task_of_kind(kind)
    found = [_look(model, task, data, teacher, name, given, images, shown) for name, given, teacher in loaded]
    return sorted(found, key=lambda candidate: (candidate.accuracy is None, -(candidate.accuracy or 0), -candidate.cka))


def validation_images(data: Path, imgsz: int, limit: int) -> Tensor:
    """Read validation images, spread evenly over the set and letterboxed to a square.

    Args:
        data: The data set's YAML file.
        imgsz: Side in pixels.
        limit: How many at most.

    Returns:
        (B, C, imgsz, imgsz) in [0, 1], C as the data says, RGB where that is 3.

    Raises:
        IMAError: If the data has no images that can be read.
    """
    found = read_data_set(str(data), "val")
    paths, channels = list(images_in(found["val"])), int(found["channels"])
    chosen = paths[:: max(1, len(paths) // limit)][:limit]
    read = [image for path in chosen if (image := read_image(path, channels)) is not None]
    if not read:
        raise IMAError(f"data={data}: no images for 'val' that can be read")
    pictures = [LetterBox((imgsz, imgsz))(image=image).reshape(imgsz, imgsz, -1) for image in read]
    stacked = np.stack(pictures)
    if channels == 3:
        stacked = stacked[..., ::-1]  # BGR -> RGB
    # (B, H, W, C) -> (B, C, H, W)
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))).float() / 255


def _is_untrained(student: BaseModel) -> bool:
    """Whether the batch norms still have the statistics that they are built with."""
    norms = [norm for norm in batch_norms(student) if norm.running_mean is not None]
    return bool(norms) and not any(norm.running_mean.any() or (norm.running_var != 1).any() for norm in norms)


@torch.no_grad()
def settle(student: BaseModel, images: Tensor) -> None:
    """Give the batch norms of an untrained student the statistics of images, (B, C, H, W).

    With those that it is built with, mean 0 and variance 1, its maps fade to nothing from layer to layer: there would
    be no likeness to measure.
    """
    norms = batch_norms(student)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    head, levels = neck(student)
    student.train()
    for part in images.split(BATCH):
        with tap(head, levels, stop=True):
            # one image with one cell at the coarsest level would be a single value, which has no variance
            student(part if len(part) > 1 else torch.cat([part, part.flip(3)]))
    student.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def student_maps(student: BaseModel, images: Tensor) -> Features:
    """Return a student's neck maps of (B, C, H, W) images, in evaluation."""
    head, levels = neck(student)
    with tap(head, levels, stop=True) as caught:
        student.eval()(images)
    return Features.of_image(caught.maps or [], images.shape[2])


def _look(
    student: BaseModel,
    task: str,
    data: Path,
    teacher: Teacher,
    name: str,
    weights: str | None,
    images: Tensor,
    shown: Input,
) -> Candidate:
    view = fit(teacher, probe(student, images.shape[1]).strides, images.shape[1], shown=shown)
    cka, gap, aligned = _compare(student, view, images)
    accuracy, metric, note = (
        None,
        "mIoU" if task == "semantic" else "mAP50-95",
        "its accuracy can be measured for checkpoints of Ultralytics alone",
    )
    imgsz = round(images.shape[2] * shown.scale)
    if is_file(name):
        row = measure(Path(name), data, imgsz, name, task, workers=0)
        accuracy, note = row.miou if task == "semantic" else row.map50_95, row.note
    shape = (min(BATCH, len(images)), teacher.input_channels, imgsz, imgsz)
    milliseconds, mebibytes = cost(name, weights, shape, select_device("", verbose=False))
    return Candidate(name, accuracy, note, cka, gap, aligned, milliseconds, mebibytes, view.strides, metric)


def _compare(student: BaseModel, view: View, images: Tensor) -> tuple[float, float, float]:
    """CKA, gap of distributions and gap after standardization, means over the levels that both have."""
    generator = torch.Generator().manual_seed(0)
    kept: dict[int, list[tuple[Tensor, ...]]] = {stride: [] for stride in view.strides}
    for part in images.split(BATCH):
        own, seen = student_maps(student, part), view(part).features
        for stride in view.strides:
            pair = own.at(stride), same_size(seen.at(stride), own.at(stride))
            count = pair[0].shape[2] * pair[0].shape[3]
            chosen = torch.randperm(count, generator=generator)[:CELLS]
            maps = (*pair, *(standardize(level) for level in pair))
            # (B, C, H, W) -> (B, C, H*W) -> (B, C, CELLS)
            kept[stride].append(tuple(level.flatten(2)[:, :, chosen, None] for level in maps))
    levels = [[torch.cat(parts) for parts in zip(*batches, strict=True)] for batches in kept.values()]
    return (
        float(np.mean([linear_cka(cells(first), cells(second)) for first, second, _, _ in levels])),
        float(np.mean([divergence(first, second) for first, second, _, _ in levels])),
        float(np.mean([divergence(first, second) for _, _, first, second in levels])),
    )


def table(found: Sequence[Candidate]) -> str:
    """The candidates as a Markdown table, with notes below it."""
    rows = [
        [
            candidate.name,
            "-" if candidate.accuracy is None else f"{candidate.accuracy:.3f}",
            f"{candidate.cka:.3f}",
            f"{candidate.gap:.3f}",
            f"{candidate.gap_aligned:.3f}",
            f"{candidate.milliseconds:.1f}",
            f"{candidate.mebibytes:.0f}",
        ]
        for candidate in found
    ]
    headings = ("teacher", found[0].metric, *HEADINGS)
    lines = [headings, ("---", *["---:"] * (len(headings) - 1)), *rows]
    notes = [f"{candidate.name}: {candidate.note}" for candidate in found if candidate.note]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + (["", *notes] if notes else []))


def plot(found: Sequence[Candidate], output: Path) -> Path:
    """Draw likeness against accuracy, or against cost where none is known, and write it as a PNG.

    A candidate without accuracy among others that have one is a hollow mark at the foot.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = any(candidate.accuracy is not None for candidate in found)
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    highest = 0.0
    for candidate in found:
        height = (candidate.accuracy or 0.0) if known else candidate.milliseconds
        inside = "white" if known and candidate.accuracy is None else "#1f77d0"
        style: dict[str, Any] = {
            "color": "#1f77d0",
            "markerfacecolor": inside,
            "markersize": 8,
            "clip_on": False,
            "zorder": 3,
        }
        axes.plot(candidate.cka, height, "o", **style)
        highest = max(highest, height)
        label = Path(candidate.name).stem if is_file(candidate.name) else candidate.name
        label += " (accuracy not known)" if inside == "white" else ""
        side = "left" if candidate.cka < 0.5 else "right"  # of the text: it grows into the picture
        place = (6 if side == "left" else -6, 8)
        axes.annotate(label, (candidate.cka, height), xytext=place, textcoords="offset points", ha=side, fontsize=9)
    axes.set_xlabel("likeness to the student (linear CKA)")
    axes.set_ylabel(f"accuracy on the data ({found[0].metric})" if known else "cost (ms for an image)")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.2 * highest or 1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=150)
    pyplot.close(figure)
    return output
