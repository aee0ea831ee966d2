"""What is read off Ultralytics: safe loading, the neck, what a head says, and the versions that were tested."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT, check_dict_alignment
from ultralytics.nn.tasks import BaseModel, guess_model_task, torch_safe_load
from ultralytics.utils import LOGGER, SETTINGS, downloads, nms
from ultralytics.utils.checks import check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.tal import make_anchors

from ima_yolo.architecture import check_architecture
from ima_yolo.errors import IMAError, one_line
from ima_yolo.features import Features, Predictions, tap
from ima_yolo.pickles.check import check_checkpoint
from ima_yolo.pickles.content import check_content, check_growth, check_paths, check_sizes, check_words
from ima_yolo.pickles.shapes import check_shapes
from ima_yolo.plain_yaml import check_size
from ima_yolo.quantized import check_quantization, need_modelopt
from ima_yolo.trust import trusts

TESTED = ((8, 4, 190), (8, 4, 190))  # lowest and highest Ultralytics release that the tests were run with
PROBE_SIZE = 256  # pixels: a multiple of every stride in use, up to 64 of p6 models
DETECTION_HEADS = ("Detect", "v10Detect")  # heads with scores and boxes for every cell of the maps
UNLABELLED = "ima_unlabelled"  # where a batch carries images without labels


def check_version(version: str = ultralytics.__version__) -> None:
    """Warn where the installed Ultralytics lies outside the tested range."""
    found = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    low, high = (".".join(map(str, edge)) for edge in TESTED)
    if not TESTED[0] <= found <= TESTED[1]:
        LOGGER.warning(f"ima-yolo was tested with ultralytics {low} to {high}; {version} is installed and may differ")


def ultralytics_keys() -> frozenset[str]:
    """Names of all keys that Ultralytics takes."""
    return frozenset(DEFAULT_CFG_DICT)


def is_ultralytics_key(key: str) -> bool:
    """Whether Ultralytics takes this key, including those that it renames with a notice."""
    level = LOGGER.level
    LOGGER.setLevel("CRITICAL")  # the check prints the whole command-line help before it raises
    try:
        check_dict_alignment(DEFAULT_CFG_DICT, {key: None})
    except SyntaxError:
        return False
    finally:
        LOGGER.setLevel(level)
    return True


def load_model(path: str | Path, role: str, reopened: bool = False) -> tuple[BaseModel, dict[str, Any]]:
    """Load an Ultralytics checkpoint without running any code that it may carry.

    Args:
        path: A `.pt` file.
        role: "teacher" or "student", for the message.
        reopened: Whether Ultralytics opens the file afterwards, which builds the quantization of `quantize=8` as well.

    Returns:
        The model in float32 and eval mode, and the checkpoint's dictionary.

    Raises:
        IMAError: If the file is missing, damaged, holds anything but known model classes, or is no Ultralytics model.
    """
    if not can_be_had(str(path)):
        raise IMAError(f"{role}={path}: file not found")
    if str(path) != str(path).strip().replace("'", ""):  # without these Ultralytics would open another file
        raise IMAError(f"{role}={path}: Ultralytics reads no apostrophes or spaces around a name; rename the file")
    taken_for = check_yolov5u_filename(str(path), verbose=False)
    if taken_for != str(path):
        raise IMAError(f"{role}={path}: Ultralytics takes this name for {Path(taken_for).name}; rename the file")
    try:
        if local_file(str(path)) is None:
            path = downloads.attempt_download_asset(str(path))
        is_strange = not trusts()
        if is_strange and (file := local_file(str(path))) is not None:
            check_checkpoint(file)
        checkpoint, _ = torch_safe_load(str(path), safe_only=is_strange)
        if is_strange:
            check_content(checkpoint)  # before anything of it is called
        model = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, Mapping) else None
        if not isinstance(model, BaseModel):
            raise IMAError(f"no Ultralytics model inside (found {type(model).__name__})")
        if is_strange:
            _check_model(checkpoint, model)
        if reopened and checkpoint.get("modelopt"):
            need_modelopt("a model of quantize=8")
        class_names(model)
        return model.float().eval(), dict(checkpoint)
    except Exception as error:
        raise IMAError(f"{role}={path}: {_reason(error, local_file(str(path)))}") from error


def _check_model(checkpoint: Mapping[str, Any], model: BaseModel) -> None:
    """Refuse a model that no memory, time or page holds, and one whose description would be run."""
    check_size([checkpoint, vars(model)])
    check_paths(model)
    check_growth(model)
    check_words(checkpoint, model)
    check_sizes(checkpoint, model)
    check_shapes(model)
    check_quantization(checkpoint)
    check_architecture(getattr(model, "yaml", None))


def can_be_had(path: str) -> bool:
    """Whether a checkpoint is here, or is one that Ultralytics publishes; any other name would be sought online."""
    return local_file(path) is not None or is_published(path) or path.startswith(("https://", "http://"))


def is_published(path: str) -> bool:
    """Whether a checkpoint is not here, and Ultralytics would fetch it by its name."""
    return local_file(path) is None and path in GITHUB_ASSETS_NAMES


def local_file(path: str) -> Path | None:
    """Find a checkpoint as Ultralytics does: as it is named, or in its folder of weights."""
    places = (Path(path), Path(SETTINGS["weights_dir"]) / path)
    return next((place for place in places if place.is_file()), None)


def _reason(error: Exception, path: Path | None) -> str:
    text = one_line(error)
    if isinstance(error, IMAError):
        return text
    if isinstance(error, (RecursionError, AttributeError)):
        return "refused, since what it holds is not built as an Ultralytics model is"
    if path is None:
        return f"the file is not here and could not be downloaded ({text})"
    if "not a loadable checkpoint" in text or isinstance(error, (EOFError, OSError)) or not _is_archive(path):
        return "the file is empty, truncated or not a checkpoint"
    if "references types outside" in text or "blocked during restricted" in text:
        return "refused, since it carries code or classes that are not part of an Ultralytics model"
    return text


def _is_archive(path: Path) -> bool:
    """Whether a file begins as `torch.save` writes it: a zip archive, or a pickle in files from before 2020."""
    with path.open("rb") as file:
        return file.read(2) in {b"PK", b"\x80\x02"}


def task_of(model: BaseModel) -> str:
    """Return the task of a model, from its class."""
    return str(guess_model_task(model))


def class_names(model: BaseModel) -> dict[int, str]:
    """Return the class names that a checkpoint carries, by index.

    Raises:
        IMAError: If they are neither a list nor numbered; without the file's name.
    """
    names = getattr(model, "names", None) or {}
    try:
        pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
        return {int(index): _name(name) for index, name in pairs}
    except (TypeError, ValueError) as error:
        raise IMAError("its class names are neither a list nor numbered") from error


def _name(name: Any) -> str:
    if not isinstance(name, (str, int, float)):
        raise TypeError(f"a class is named by a {type(name).__name__}")
    return str(name)


def neck(model: BaseModel) -> tuple[nn.Module, int]:
    """Return the head, and how many maps the neck feeds it.

    Raises:
        IMAError: If the last layer takes no list of maps, as in a classification model.
    """
    head = model.model[-1]
    levels = getattr(head, "nl", None)
    if levels is None or not isinstance(head.f, list):
        raise IMAError(f"a {task_of(model)} model ({type(head).__name__} head) has no feature pyramid to distil")
    return head, int(levels)


@contextmanager
def unhurried_nms() -> Iterator[None]:
    """Lift the time limit of Ultralytics' NMS, which leaves boxes out on a busy machine, and with them mAP."""
    limited = nms.non_max_suppression
    nms.non_max_suppression = functools.partial(limited, max_time_img=math.inf)
    try:
        yield
    finally:
        nms.non_max_suppression = limited


def predictions(head: Any, output: Any) -> Predictions:
    """Read what a detection head returned, in training or evaluation, as scores and boxes of every cell.

    Args:
        head: The head, for its strides and box coding.
        output: Its return value: of a head with two branches the one-to-many one is read, which scores every cell.

    Raises:
        IMAError: If the head is not of the anchor-free kind that has scores and boxes for every cell.
    """
    raw = output[1] if isinstance(output, tuple) else output
    raw = raw.get("one2many", raw) if isinstance(raw, dict) else {}
    if not {"boxes", "scores", "feats"} <= raw.keys():
        raise IMAError(f"a {type(head).__name__} head has no scores and boxes for every cell; use ima_cls=0 ima_box=0")
    anchors, strides = make_anchors(raw["feats"], head.stride, 0.5)  # (A, 2) in cells, (A, 1)
    coded = raw["boxes"].float().transpose(1, 2)  # (B, 4R, A) -> (B, A, 4R)
    if head.reg_max > 1:  # each side is a distribution over whole distances
        bins = torch.arange(head.reg_max, device=coded.device, dtype=coded.dtype)
        coded = coded.unflatten(2, (4, head.reg_max)).softmax(3) @ bins  # (B, A, 4R) -> (B, A, 4)
    near, far = coded.chunk(2, dim=2)
    boxes = torch.cat([anchors - near, anchors + far], dim=2) * strides
    return Predictions(raw["scores"].float().transpose(1, 2), boxes)


def batch_norms(module: nn.Module) -> list[Any]:
    """All batch norms inside a module."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def probe(model: BaseModel, channels: int = 3) -> Features:
    """Run an empty image up to the head and return the maps: their strides and channels, not their values.

    Args:
        model: Any detector; its training flag and statistics are left as they were.
        channels: Input channels of the image.
    """
    head, levels = neck(model)
    weight = next(model.parameters())
    image = torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE, device=weight.device, dtype=weight.dtype)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with tap(head, levels, stop=True) as caught:
            model(image)
    finally:
        for module, mode in modes:
            module.training = mode
    return Features.of_image(caught.maps or [], PROBE_SIZE)
