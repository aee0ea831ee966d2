"""Pictures of a report: where the distilled student beats the plain one and where it loses, its features and masks."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from ultralytics.data.augment import LetterBox

from ima_yolo.config import split, validate_alone
from ima_yolo.data_set import read_image
from ima_yolo.errors import IMAError
from ima_yolo.experiment.report.analysis import SHOWN, detections, ground_truth
from ima_yolo.experiment.report.figures import STYLE, Figure
from ima_yolo.experiment.report.measured import Measured, bands_of, teacher_file, validation
from ima_yolo.experiment.report.mistakes import Objects, harmony, mistakes
from ima_yolo.experiment.study import Job
from ima_yolo.features import Features, tap
from ima_yolo.host import load_model, neck
from ima_yolo.masks import mask_frequency, mask_spatial
from ima_yolo.pictures import Column, as_rgb, side_by_side
from ima_yolo.teachers.view import in_channels

PICTURES = 3  # of each kind
QUALITY = 82  # of JPEG
LEAST_GAIN = 0.005  # of F1: less is printed as nothing
MOST_SEARCHED = 1000  # validation images, spread evenly, among which examples are sought


def example_figures(measured: Measured) -> list[Figure]:
    """Draw what can be drawn with the checkpoints that are here.

    Args:
        measured: The study.

    Returns:
        Nothing where no seed has the checkpoints of both students, or the data lies elsewhere.
    """
    models = _models(measured)
    if models is None:
        return []
    images, names, channels = validation(measured.study)
    images = images[:: max(1, -(-len(images) // MOST_SEARCHED))]
    imgsz = measured.study.common.get("imgsz", 640)
    device = measured.study.places.get("device")
    truth = ground_truth(images, names)
    bands = {name: bands_of(measured.study, name) for name in models}
    found = {
        name: detections(path, images, names, imgsz, device, channels, bands[name]) for name, path in models.items()
    }
    plain, distilled = (found[name] for name in list(models)[-2:])
    gains = [_gain(*one) for one in zip(truth, plain, distilled, strict=True)]
    made = _pages(gains, images, names, truth, found)
    best = int(np.argmax(gains)) if gains else 0
    return [*made, feature_figure(models, images[best], imgsz, _mask_settings(measured), channels, bands)]


def _models(measured: Measured) -> dict[str, Path] | None:
    """Checkpoints of the teacher, if it is one, and of the plain and distilled student of the first seed with both."""
    study = measured.study
    arms = {arm.name: arm for arm in study.arms}
    if measured.plain is None or measured.distilled is None or study.data is None:
        return None
    for seed in study.seeds:
        pair = {name: study.weights(Job(arms[name], seed)) for name in (measured.plain, measured.distilled)}
        if all(path.is_file() for path in pair.values()):
            return {**teacher_file(study), **pair}
    return None


def _gain(truth: Objects, plain: Objects, distilled: Objects) -> float:
    """How much better the distilled student does on an image, as a difference of F1."""
    return harmony(mistakes(truth, distilled, SHOWN)) - harmony(mistakes(truth, plain, SHOWN))


def _pages(
    gains: Sequence[float],
    images: Sequence[Path],
    names: Mapping[int, str],
    truth: Sequence[Objects],
    found: Mapping[str, Sequence[Objects]],
) -> list[Figure]:
    order = np.argsort(gains, kind="stable")
    plain, distilled = list(found)[-2:]
    pages = {
        "wins": (f"Where {distilled} beats {plain}", [i for i in order[::-1][:PICTURES] if gains[i] >= LEAST_GAIN]),
        "losses": (f"Where {distilled} loses to {plain}", [i for i in order[:PICTURES] if gains[i] <= -LEAST_GAIN]),
    }
    made = []
    for name, (title, chosen) in pages.items():
        if chosen:
            columns = [_column("Ground truth", [truth[i] for i in chosen], names, scored=False)]
            columns += [_column(title, [one[i] for i in chosen], names) for title, one in found.items()]
            caption = f"{title}: largest differences of F1 ({', '.join(f'{gains[i]:+.2f}' for i in chosen)}), from the "
            caption += f"top; detections from confidence {SHOWN} up."
            content = _jpeg_of([images[i] for i in chosen], columns)
            made.append(Figure(name, "jpeg", content, caption, wide=True))
    return made


def _column(title: str, objects: Sequence[Objects], names: Mapping[int, str], scored: bool = True) -> Column:
    kept = [one.scores >= SHOWN if scored else np.ones(len(one.classes), bool) for one in objects]
    boxes = [one.boxes[keep] for one, keep in zip(objects, kept, strict=True)]
    classes = [one.classes[keep] for one, keep in zip(objects, kept, strict=True)]
    scores = [one.scores[keep] for one, keep in zip(objects, kept, strict=True)] if scored else None
    return Column(title, boxes, classes, names, scores)


def _jpeg_of(images: Sequence[Path], columns: Sequence[Column]) -> bytes:
    with (
        tempfile.TemporaryDirectory() as folder,
        Image.open(side_by_side(images, columns, Path(folder) / "page.png")) as page,
    ):
        file = io.BytesIO()
        page.convert("RGB").save(file, "JPEG", quality=QUALITY)
        return file.getvalue()


def _mask_settings(measured: Measured) -> tuple[str, float]:
    """Kind and ratio of the mask of the distilled arm."""
    arm = next(arm for arm in measured.study.arms if arm.name == measured.distilled)
    ours, _ = split({**measured.study.common, **arm.settings})
    settings = validate_alone(ours)
    return (settings.ima_mask if settings.ima_loss == "ima" else "none"), settings.ima_mask_ratio


def feature_figure(
    models: Mapping[str, Path],
    image: Path,
    imgsz: int,
    mask: tuple[str, float],
    channels: int = 3,
    bands: Mapping[str, Sequence[int] | None] | None = None,
) -> Figure:
    """Energy of each model's neck maps on one image, and what a mask leaves of the last model's.

    Args:
        models: Checkpoints by name.
        image: The image.
        imgsz: Side in pixels to which it is letterboxed.
        mask: Kind ("spatial", "frequency" or "none") and ratio.
        channels: Of the data.
        bands: By model, which of them it is shown, as in `ima_teacher_channels`.
    """
    read = read_image(image, channels)
    if read is None:
        raise IMAError(f"{image}: expected an image that can be read; check the file")
    picture = LetterBox((imgsz, imgsz))(image=read)
    planes = np.ascontiguousarray(picture[..., ::-1] if channels == 3 else picture)
    tensor = torch.from_numpy(planes).permute(2, 0, 1)[None].float() / 255
    maps = {name: neck_maps(path, tensor, (bands or {}).get(name)) for name, path in models.items()}
    rows = {name: [energy(level) for level in found.maps] for name, found in maps.items()}
    kind, ratio = mask
    if kind != "none":
        last = list(maps.values())[-1]
        hide = mask_spatial if kind == "spatial" else mask_frequency
        generator = torch.Generator().manual_seed(0)
        rows["masked"] = [energy(hide(level, ratio, generator)) for level in last.maps]
    caption = (
        "Root mean square over channels of the maps that feed the head, bright where a model responds, each scaled "
    )
    caption += "to its own range"
    if kind != "none":
        caption += f"; below them the last model's maps under one random {kind} mask of ratio {ratio:g}"
    strides = next(iter(maps.values())).strides
    return Figure("features", "jpeg", _grid(as_rgb(picture), rows, strides), caption + ".", wide=True)


@torch.no_grad()
def neck_maps(path: Path, image: Tensor, bands: Sequence[int] | None = None) -> Features:
    """Neck maps of a checkpoint for a (1, C, H, W) image in [0, 1], shown as `in_channels` does."""
    model, _ = load_model(path, "model")
    image = in_channels(image, int(model.yaml.get("channels", 3)), bands)
    head, levels = neck(model)
    with tap(head, levels, stop=True) as caught:
        model(image)
    return Features.of_image(caught.maps or [], image.shape[2])


def energy(level: Tensor) -> NDArray[Any]:
    """Root mean square over the channels of a (1, C, H, W) map: (H, W)."""
    return np.asarray(level[0].float().square().mean(dim=0).sqrt())


def _grid(picture: NDArray[Any], rows: Mapping[str, Sequence[NDArray[Any]]], strides: Sequence[int]) -> bytes:
    across = 1 + len(strides)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        canvas = Canvas(figsize=(2.3 * across, 2.45 * len(rows)), dpi=110, layout="constrained")
        for number, (name, found) in enumerate(rows.items()):
            tiles = [(picture, name), *((level, f"stride {s}") for level, s in zip(found, strides, strict=False))]
            for column, (tile, title) in enumerate(tiles):
                axes = canvas.add_subplot(len(rows), across, number * across + column + 1)
                axes.imshow(tile, cmap="inferno", interpolation="nearest")
                axes.set_title(title)
                axes.set_axis_off()
        file = io.BytesIO()
        canvas.savefig(file, format="jpeg", pil_kwargs={"quality": QUALITY})
    return file.getvalue()
