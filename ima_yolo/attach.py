"""The student that distils: an Ultralytics model whose loss has our terms, and which is plain in every copy of it."""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import BaseModel, RTDETRDetectionModel
from ultralytics.utils.torch_utils import unwrap_model

from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions, tap
from ima_yolo.host import UNLABELLED, batch_norms, neck, predictions

ATTRIBUTE = "ima"  # where the distiller hangs on the student; keys of a state_dict begin with it


@contextmanager
def steady_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of the batch norms in a module as they are while it is used once more."""
    norms = batch_norms(module)
    tracking = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = norm.track_running_stats and not norm.training  # a frozen one still needs them
    try:
        yield
    finally:
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked


def look(student: BaseModel, images: Tensor, heads: bool) -> tuple[Features, Predictions | None]:
    """Return a training student's maps of images that its own loss does not see, and what its head says of them.

    The statistics of its batch norms stay those of the labelled images.

    Args:
        student: In training mode.
        images: (B, C, H, W) in [0, 1].
        heads: Whether the head is asked too; without it the student stops before its head, and None comes back.
    """
    head, levels = neck(student)
    with steady_statistics(student), tap(head, levels, stop=not heads) as caught:
        student(images)
    maps = Features.of_image(caught.maps or [], images.shape[2])
    return maps, predictions(head, caught.output) if heads else None


def attach(student: BaseModel, distiller: nn.Module) -> None:
    """Make a student add the distiller's terms to its own loss while it trains.

    The student stays the same object. Its class becomes a subclass of its own, whose copies, pickles and state are
    those of the plain class: the averaged model and every checkpoint are ordinary Ultralytics models. The distiller is
    registered as a submodule, so that its adapters reach the optimizer and the gradient reduction between processes.

    Args:
        student: The model that is trained.
        distiller: Called as (batch, Features, task loss, predictions, look, observed) -> (scalar, named scalars).
            `predictions` is a function that gives the student's `Predictions`, since not every term needs them; `look`
            gives what the student makes of other images, and is None where the batch carries no images without labels;
            `observed` is what its `observe` gave for the batch before the student saw it. Its `measures` says whether
            this step needs the gradient of the task loss at the maps.
    """
    setattr(student, ATTRIBUTE, distiller)
    plain: Any = type(student)
    student.__class__ = _distilling_class(plain)


def is_attached(student: nn.Module) -> bool:
    """Whether a student, wrapped or not, has a distiller."""
    return isinstance(unwrap_model(student), _Distilling)


def detach(student: nn.Module) -> None:
    """Undo `attach`; a student that is not attached is left alone."""
    student = unwrap_model(student)
    if is_attached(student):
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


def cannot_compile(student: BaseModel, processes: int, imitates_int8: bool = False) -> str | None:
    """Why a student cannot be compiled while it learns from a teacher; None where it can.

    Ultralytics then computes the loss from the predictions of the compiled model, where no tap reaches: the maps have
    to come with the predictions. It also promises PyTorch, where there are several processes, that every step uses the
    same layers, and adapters rest while the distillation is off.
    """
    head = student.model[-1]
    if imitates_int8:
        return "the layers that quantize=8 puts in do not compile"
    if not isinstance(head, Detect):
        return f"the predictions of a {type(head).__name__} head carry no feature maps to compare with the teacher's"
    return "several devices cannot compile layers that rest at times, as adapters do" if processes > 1 else None


def _maps_in(preds: Any) -> list[Tensor]:
    """Neck maps inside the predictions of a compiled student, whose forward pass no hook can enter."""
    branch = preds.get("one2many", preds) if isinstance(preds, dict) else {}
    if "feats" not in branch:
        raise IMAError("this student's predictions carry no feature maps, so it cannot distil with compile=True")
    return list(branch["feats"])
