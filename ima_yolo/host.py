"""Everything that knows the insides of Ultralytics: safe loading, the neck, and the student that distils."""

from __future__ import annotations

import copyreg
import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.cfg import DEFAULT_CFG_DICT, check_dict_alignment
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import BaseModel, RTDETRDetectionModel, guess_model_task, torch_safe_load
from ultralytics.utils import LOGGER, SETTINGS, nms
from ultralytics.utils.checks import check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.tal import make_anchors
from ultralytics.utils.torch_utils import unwrap_model

from ima_yolo.errors import IMAError, one_line
from ima_yolo.features import Features, Predictions, tap
from ima_yolo.trust import check_architecture, check_archive, check_tensors, trusts

TESTED = ((8, 4, 190), (8, 4, 190))  # lowest and highest Ultralytics release that the tests were run with
PROBE_SIZE = 256  # pixels: a multiple of every stride in use, up to 64 of p6 models
DETECTION_HEADS = ("Detect", "v10Detect")  # heads with scores and boxes for every cell of the maps
UNLABELLED = "ima_unlabelled"  # where a batch carries images without labels
ATTRIBUTE = "ima"  # where the distiller hangs on the student; keys of a state_dict begin with it


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


def load_model(path: str | Path, role: str) -> tuple[BaseModel, dict[str, Any]]:
    """Load an Ultralytics checkpoint without running any code that it may carry.

    Args:
        path: A `.pt` file.
        role: "teacher" or "student", for the message.

    Returns:
        The model in float32 and eval mode, and the checkpoint's dictionary.

    Raises:
        IMAError: If the file is missing, damaged, holds anything but known model classes, or is no Ultralytics model.
    """
    if not can_be_had(str(path)):
        raise IMAError(f"{role}={path}: file not found")
    taken_for = check_yolov5u_filename(str(path), verbose=False)
    if taken_for != str(path):
        raise IMAError(f"{role}={path}: Ultralytics takes this name for {Path(taken_for).name}; rename the file")
    try:
        if (file := local_file(str(path))) is not None and not trusts():
            check_archive(file)
        checkpoint, _ = torch_safe_load(str(path), safe_only=not trusts())
        model = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, Mapping) else None
        if not isinstance(model, BaseModel):
            raise IMAError(f"no Ultralytics model inside (found {type(model).__name__})")
        if not trusts():
            check_tensors(checkpoint)
            check_architecture(getattr(model, "yaml", None))
        return model.float().eval(), dict(checkpoint)
    except Exception as error:
        raise IMAError(f"{role}={path}: {_reason(error, local_file(str(path)))}") from error


def can_be_had(path: str) -> bool:
    """Whether a checkpoint is here, or is one that Ultralytics publishes; any other name would be sought online."""
    return local_file(path) is not None or path in GITHUB_ASSETS_NAMES or path.startswith(("https://", "http://"))


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
    """Return the class names that a checkpoint carries, by index."""
    names = getattr(model, "names", None) or {}
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {int(index): str(name) for index, name in pairs}


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


@contextmanager
def steady_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of the batch norms in a module as they are while it is used once more."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    tracking = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = norm.track_running_stats and not norm.training  # a frozen one still needs them
    try:
        yield
    finally:
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked


def look(student: BaseModel, images: Tensor) -> Features:
    """Return a training student's maps of images that its own loss does not see.

    The statistics of its batch norms stay those of the labelled images.

    Args:
        student: In training mode.
        images: (B, C, H, W) in [0, 1].
    """
    head, levels = neck(student)
    with steady_statistics(student), tap(head, levels, stop=True) as caught:
        student(images)
    return Features.of_image(caught.maps or [], images.shape[2])


def attach(student: BaseModel, distiller: nn.Module) -> None:
    """Make a student add the distiller's terms to its own loss while it trains.

    The student stays the same object. Its class becomes a subclass of its own, whose copies, pickles and state are
    those of the plain class: the averaged model and every checkpoint are ordinary Ultralytics models. The distiller is
    registered as a submodule, so that its adapters reach the optimizer and the gradient reduction between processes.

    Args:
        student: The model that is trained.
        distiller: Called as (batch, Features, task loss, predictions, look, observed) -> (scalar, named scalars).
            `predictions` is a function that gives the student's `Predictions`, since not every term needs them; `look`
            gives the student's maps of images, and is None where the batch carries no images without labels; `observed`
            is what its `observe` gave for the batch before the student saw it. Its `measures` says whether this step
            needs the gradient of the task loss at the maps.
    """
    setattr(student, ATTRIBUTE, distiller)
    plain: Any = type(student)
    student.__class__ = _distilling_class(plain)


def detach(student: nn.Module) -> None:
    """Undo `attach`; a student that is not attached is left alone."""
    student = unwrap_model(student)
    if isinstance(student, _Distilling):
        delattr(student, ATTRIBUTE)
        student.__class__ = type(student).__bases__[1]


class _Distilling(nn.Module if TYPE_CHECKING else object):  # type: ignore[misc]
    """The behaviour that `attach` adds in front of a model class."""

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the student's own losses with the distillation appended, at the scale of the former."""
        if not self.training:
            return super().loss(batch, preds)
        head, levels = neck(self)
        distiller: Any = getattr(self, ATTRIBUTE)
        observed = distiller.observe(batch)  # first: what the teachers need is free before the student's maps are kept
        with tap(head, levels) as caught:
            loss, items = super().loss(batch, preds)
        images = batch["img"]
        maps = caught.maps if caught.maps is not None else _maps_in(preds)
        student = Features.of_image(maps, images.shape[2])
        output = preds if caught.output is None else caught.output
        predicted = functools.partial(predictions, head, output)
        scale = 1 if isinstance(self, RTDETRDetectionModel) else images.shape[0]  # the others sum over images
        task = loss
        if caught.output is None and distiller.measures:
            # what a compiled graph returns does not depend on the maps that it returns beside it
            with steady_statistics(head):
                task, _ = super().loss(batch, head(list(maps)))
        other = functools.partial(look, self) if UNLABELLED in batch else None
        extra, extra_items = distiller(batch, student, task.sum() / scale, predicted, other, observed)
        return torch.cat([loss.view(-1), extra.view(1) * scale]), {**items, **extra_items}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the state of the plain student."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "") + ATTRIBUTE + "."
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the state of a plain student; the distiller keeps its own."""
        own = {f"{ATTRIBUTE}.{key}": value for key, value in getattr(self, ATTRIBUTE).state_dict().items()}
        return super().load_state_dict({**state_dict, **own}, *args, **kwargs)

    def _plain_state(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_modules"] = {name: module for name, module in self._modules.items() if name != ATTRIBUTE}
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        """Return a copy of the plain class, without the distiller."""
        plain: Any = type(self).__bases__[1]
        copied = plain.__new__(plain)
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self._plain_state(), memo))
        return copied

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle as the plain class, without the distiller."""
        # pickle refuses `__newobj__` with a class that is not the object's own; this builds the same bare instance
        rebuild: Any = vars(copyreg)["_reconstructor"]
        return rebuild, (type(self).__bases__[1], object, None), self._plain_state()


@functools.cache
def _distilling_class(plain: Any) -> Any:
    return type(plain.__name__, (_Distilling, plain), {"__module__": plain.__module__})


def cannot_compile(student: BaseModel, processes: int) -> str | None:
    """Why a student cannot be compiled while it learns from a teacher; None where it can.

    Ultralytics then computes the loss from the predictions of the compiled model, where no tap reaches: the maps have
    to come with the predictions. It also promises PyTorch, where there are several processes, that every step uses the
    same layers, and adapters rest while the distillation is off.
    """
    head = student.model[-1]
    if not isinstance(head, Detect):
        return f"the predictions of a {type(head).__name__} head carry no feature maps to compare with the teacher's"
    return "several devices cannot compile layers that rest at times, as adapters do" if processes > 1 else None


def _maps_in(preds: Any) -> list[Tensor]:
    """Neck maps inside the predictions of a compiled student, whose forward pass no hook can enter."""
    branch = preds.get("one2many", preds) if isinstance(preds, dict) else {}
    if "feats" not in branch:
        raise IMAError("this student's predictions carry no feature maps, so it cannot distil with compile=True")
    return list(branch["feats"])
