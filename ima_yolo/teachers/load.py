"""Which teacher a name means, and whether what it shows can be used."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError, one_line
from ima_yolo.features import Features
from ima_yolo.teachers import Teacher, TeacherOutput
from ima_yolo.teachers.function import function_teacher
from ima_yolo.teachers.half import is_native
from ima_yolo.teachers.module import PROBE_SIZE
from ima_yolo.teachers.timm import timm_teacher
from ima_yolo.teachers.torchvision import torchvision_teacher
from ima_yolo.teachers.yolo import YOLOTeacher

HOSTS = {"torchvision": torchvision_teacher, "timm": timm_teacher}
WORTH = 2000  # looks at an image, which save the time that the conversion takes, or more
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_file(name: str) -> bool:
    """Whether a teacher's name means an Ultralytics checkpoint."""
    return name.partition(":")[0] not in HOSTS and not FUNCTION.fullmatch(name)


def is_function(name: str) -> bool:
    """Whether a teacher's name means a function, which is imported and called."""
    return name.partition(":")[0] not in HOSTS and bool(FUNCTION.fullmatch(name))


def has_weights(name: str) -> bool:
    """Whether a teacher comes with weights of its own, as checkpoints and functions do."""
    return name.partition(":")[0] not in HOSTS


def load_teacher(name: str, weights: str | None = None, conf: float = 0.25) -> Teacher:
    """Load a teacher and look at one image with it.

    Args:
        name: A checkpoint of Ultralytics (`yolo26m.pt`), `torchvision:ARCHITECTURE`, `timm:ARCHITECTURE`, or
            `package.module:function`.
        weights: Weights of a torchvision or timm model, see there.
        conf: Least score of a detection that counts as a box.

    Raises:
        IMAError: If it cannot be loaded, or its maps cannot be used.
    """
    host, _, architecture = name.partition(":")
    if weights is not None and host not in HOSTS:
        raise IMAError(f"ima_teacher_weights={weights}: teacher={name} has weights of its own; leave the key out")
    if host in HOSTS:
        teacher: Teacher = HOSTS[host](architecture, weights)
    else:
        teacher = _of_ultralytics(name, conf) if is_file(name) else function_teacher(name)
    _try(teacher)
    return teacher


def _of_ultralytics(name: str, conf: float) -> YOLOTeacher:
    try:
        return YOLOTeacher(name, conf)
    except IMAError:
        raise
    except Exception as error:  # of any kind: a layer may lack anything
        raise IMAError(f"teacher={name}: cannot be fused, or look at an image ({one_line(error)})") from error


@torch.no_grad()
def _try(teacher: Teacher) -> None:
    """Show a teacher an image of noise and refuse what could not be compared with a student."""
    side = max(PROBE_SIZE, *teacher.strides)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, teacher.input_channels, side, side, generator=generator)
    check_maps(teacher, ask(teacher, images), images.shape)


def choose_runtime(teachers: Sequence[Teacher], choice: str, device: torch.device, looks: float) -> None:
    """Let teachers look in bfloat16, or by ONNX Runtime, where that was asked for or pays.

    Args:
        teachers: On their device.
        choice: `ima_teacher_runtime`: torch, bf16, onnx or auto.
        device: Where they are.
        looks: How many images each sees in the whole training.
    """
    if choice == "torch" or (choice == "auto" and (device.type != "cpu" or looks < WORTH)):
        _release_memory()
        return
    if choice == "bf16" and device.type == "cpu" and not is_native():
        LOGGER.warning("ima_teacher_runtime=bf16: this processor does not multiply bfloat16 itself, and is slower so")
    for teacher in teachers:
        if device.type != "cpu" or not isinstance(teacher, YOLOTeacher):
            if choice != "auto":
                limit = f"ima_teacher_runtime={choice} is for Ultralytics models on a CPU"
                LOGGER.info(f"{teacher.name} runs by PyTorch: {limit}")
            continue
        rounded = choice != "onnx" and (choice == "bf16" or is_native()) and teacher.by_half()
        if not rounded and choice != "bf16":
            teacher.by_graph()
    _release_memory()


def _release_memory() -> None:
    """Give memory that is free back to the system, where the C library can do so (Linux, glibc).

    Loading, fusing and rounding a teacher leaves a hundred megabytes free inside the process, in pieces that a training
    step does not fill. The model that it was made of is one of objects that name each other: without a search it would
    be kept beside it for a while.
    """
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def ask(teacher: Teacher, images: Tensor, *wanted: bool) -> TeacherOutput:
    """Show a teacher images.

    Args:
        teacher: Frozen.
        images: (B, `input_channels`, H, W) in [0, 1].
        *wanted: Whether it is asked for confidence, boxes and predictions, in this order.

    Raises:
        IMAError: If it fails. Want of memory is passed on: Ultralytics then tries a smaller batch.
    """
    try:
        return teacher(images, *wanted)
    except IMAError:
        raise
    except Exception as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "out of memory" in str(error):
            raise
        size = f"{images.shape[2]} x {images.shape[3]} px"
        raise IMAError(f"teacher={teacher.name}: cannot look at images of {size} ({one_line(error)})") from error


def check_maps(teacher: Teacher, seen: Any, shape: Sequence[int], values: bool = True) -> None:
    """Refuse maps that are not those that a teacher's strides and channels promise.

    Args:
        teacher: For its name, strides and channels.
        seen: What it showed.
        shape: Of the images that it was shown, (B, C, H, W).
        values: Whether to look at the values too, which makes a GPU wait.

    Raises:
        IMAError: If a map is missing, of another shape, not finite, of another kind of numbers, or part of a graph.
    """
    size = shape[2:]
    name = f"teacher={teacher.name}"
    if not isinstance(seen, TeacherOutput) or not isinstance(seen.features, Features):
        kind = type(seen).__name__
        raise IMAError(f"{name}: gave {kind} for a batch; expected TeacherOutput(Features(maps, strides))")
    maps = seen.features.maps
    if tuple(seen.features.strides) != tuple(teacher.strides) or len(maps) != len(teacher.strides):
        raise IMAError(
            f"{name}: gave {len(maps)} maps of strides {list(seen.features.strides)}; expected {list(teacher.strides)}"
        )
    for level, stride, width in zip(maps, teacher.strides, teacher.channels, strict=True):
        expected = (width, -(-size[0] // stride), -(-size[1] // stride))
        if not isinstance(level, torch.Tensor) or tuple(level.shape[1:]) != expected:
            found = str(tuple(level.shape[1:])) if isinstance(level, torch.Tensor) else type(level).__name__
            raise IMAError(
                f"{name}: its map of stride {stride} is {found} for an image of {size[0]} x {size[1]} px; "
                f"expected {expected} (channels, rows, columns)"
            )
        if len(level) != shape[0]:
            raise IMAError(f"{name}: its map of stride {stride} is of {len(level)} images; expected {shape[0]}")
        if not level.is_floating_point():
            kind = str(level.dtype).removeprefix("torch.")
            raise IMAError(f"{name}: its map of stride {stride} holds {kind}; expected floating-point numbers")
        if level.requires_grad:
            raise IMAError(f"{name}: its map of stride {stride} carries a gradient; expected a frozen model")
        if values and not bool(level.isfinite().all()):
            raise IMAError(f"{name}: its map of stride {stride} holds NaN or infinite values; check its weights")
