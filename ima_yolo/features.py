"""Neck maps of a detector: the container that travels through the package, and the tap that catches them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ima_yolo.errors import IMAError


@dataclass(frozen=True)
class Features:
    """The maps that feed a detector's head.

    Attributes:
        maps: One tensor a pyramid level, each (B, C, H, W).
        strides: Image pixels per cell of each map.
    """

    maps: tuple[Tensor, ...]
    strides: tuple[int, ...]

    @classmethod
    def of_image(cls, maps: Sequence[Tensor], height: int) -> Features:
        """Derive the strides from the maps of an image.

        Args:
            maps: One (B, C, H, W) tensor a level.
            height: Height of the image in pixels.

        Raises:
            IMAError: If a map is not 4-D, is empty, or its stride is below one pixel.
        """
        for level in maps:
            if level.ndim != 4 or level.shape[2] < 1 or level.shape[2] > height:
                raise IMAError(
                    f"a feature map has shape {tuple(level.shape)}; expected (B, C, H, W) with 1 <= H <= {height}"
                )
        return cls(tuple(maps), tuple(round(height / level.shape[2]) for level in maps))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(level.shape[1] for level in self.maps)

    def at(self, stride: int) -> Tensor:
        """Return the (B, C, H, W) map of one stride."""
        return self.maps[self.strides.index(stride)]

    def of_images(self, chosen: Tensor) -> Features:
        """The maps of some images, (len(chosen), C, H, W)."""
        return Features(tuple(level[chosen] for level in self.maps), self.strides)


def match_levels(
    student: Sequence[int], teacher: Sequence[float], wanted: Sequence[int] | None = None
) -> dict[int, int]:
    """Match the student's levels with the teacher's, finest first.

    Levels are matched by stride and never by index, since pyramids start and end at different strides. A student's
    level takes the teacher's nearest one if the two differ by at most the factor sqrt(2), half of what lies between
    two levels of a pyramid; beyond that another object size is meant, and the level is left out.

    Args:
        student: Strides of the student's maps, in pixels.
        teacher: Strides of the teacher's maps, in pixels of the student's image.
        wanted: If given, keep only these strides of the student.

    Returns:
        Stride of the student -> index of the teacher's map.

    Raises:
        IMAError: If nothing matches, or a wanted stride does not.
    """
    matched = {}
    for stride in sorted(student):
        distances = [abs(math.log2(other / stride)) for other in teacher]
        nearest = min(range(len(teacher)), key=distances.__getitem__)
        if distances[nearest] <= 0.5 + 1e-6:
            matched[stride] = nearest
    if not matched:
        known = [float(f"{stride:.4g}") if stride % 1 else int(stride) for stride in teacher]
        raise IMAError(f"no feature level matches: the student's strides are {list(student)}, the teacher's {known}")
    if wanted is None:
        return matched
    if missing := sorted(set(wanted) - set(matched)):
        raise IMAError(
            f"ima_levels={list(wanted)}: stride {missing[0]} is not shared; student and teacher share {list(matched)}"
        )
    return {stride: matched[stride] for stride in sorted(set(wanted))}


@dataclass(frozen=True)
class Predictions:
    """What a detection head says of every cell, before any selection.

    Attributes:
        scores: Class logits, (B, A, K), A cells over all levels, finest level first.
        boxes: xyxy in pixels, (B, A, 4).
    """

    scores: Tensor
    boxes: Tensor

    def of_images(self, chosen: Tensor) -> Predictions:
        """What is said of some images, (len(chosen), A, ...)."""
        return Predictions(self.scores[chosen], self.boxes[chosen])


class _NeckReached(Exception):
    """Raised in the tap to leave a forward pass before the head."""


class Caught:
    """What a tap has seen: `maps` is None until the tapped head has been called, `output` until it has returned."""

    def __init__(self) -> None:
        self.maps: list[Tensor] | None = None
        self.output: Any = None


@contextmanager
def tap(head: nn.Module, levels: int, stop: bool = False) -> Iterator[Caught]:
    """Catch the maps that enter `head`, and what it returns, while the context is open.

    The hooks live only inside the context: hooks that stayed would be copied into the averaged model and saved.

    Args:
        head: The module whose first argument is the list of maps.
        levels: How many of that list are maps; some heads take more inputs.
        stop: Leave the forward pass before the head runs. The context swallows the interruption.

    Yields:
        The holder that the forward pass fills.
    """
    caught = Caught()

    def catch(_: nn.Module, args: tuple[Sequence[Tensor], ...]) -> None:
        caught.maps = list(args[0])[:levels]
        if stop:
            raise _NeckReached

    def keep(_: nn.Module, args: Any, output: Any) -> None:
        caught.output = output

    handles = [head.register_forward_pre_hook(catch), head.register_forward_hook(keep)]
    try:
        yield caught
    except _NeckReached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def same_size(teacher_map: Tensor, student_map: Tensor) -> Tensor:
    """Resample a teacher map to the student's height and width where they differ.

    Args:
        teacher_map: (B, C_t, H_t, W_t).
        student_map: (B, C_s, H, W).

    Returns:
        (B, C_t, H, W), the input itself where sizes agree.
    """
    if teacher_map.shape[2:] == student_map.shape[2:]:
        return teacher_map
    return torch.nn.functional.interpolate(
        teacher_map, size=student_map.shape[2:], mode="bilinear", align_corners=False
    )
