"""A teacher as one student sees it: shown its images in the teacher's terms, with maps at its levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ima_yolo.errors import IMAError
from ima_yolo.features import Features, match_levels
from ima_yolo.teachers import Teacher, TeacherOutput, resampled_from
from ima_yolo.teachers.load import ask, check_maps

LUMA = (0.299, 0.587, 0.114)  # share of red, green and blue in a grey image (ITU-R BT.601)
EVERY = 100  # looks between two checks of the maps' values, which make a GPU wait


@dataclass(frozen=True)
class Input:
    """How a student's images become a teacher's.

    Attributes:
        scale: Side of the teacher's image over that of the student's.
        bands: Which of the student's channels the teacher sees; None for all, made grey or coloured as it needs.
    """

    scale: float = 1.0
    bands: tuple[int, ...] | None = None


class View:
    """A teacher behind the differences to a student.

    Args:
        teacher: Frozen teacher.
        levels: Stride of the student -> index of the teacher's map.
        shown: How images are made for it.

    Attributes:
        strides: Those of the student's levels that have a counterpart, finest first.
        channels: Channels of the teacher's map at each.
    """

    def __init__(self, teacher: Teacher, levels: dict[int, int], shown: Input) -> None:
        """Keep the parts."""
        self.teacher = teacher
        self.strides = tuple(levels)
        self.channels = {stride: teacher.channels[index] for stride, index in levels.items()}
        self._levels, self._shown = levels, shown
        self._looks = 0

    @property
    def name(self) -> str:
        """How messages call the teacher."""
        return self.teacher.name

    def __call__(
        self, images: Tensor, confidence: bool = False, boxes: bool = False, predictions: bool = False
    ) -> TeacherOutput:
        """Look at the student's images, (B, C, H, W) in [0, 1].

        Returns:
            Maps and confidence by the student's strides, boxes in pixels of its images. Maps keep their own size, which
            the losses resample to the student's.
        """
        own = resized(in_channels(images, self.teacher.input_channels, self._shown.bands), self._shown.scale)
        with torch.no_grad():
            seen = ask(self.teacher, own, confidence, boxes, predictions)
        check_maps(self.teacher, seen, own.shape, values=self._looks % EVERY == 0)
        _check_said(self.teacher, seen, confidence=confidence, boxes=boxes, predictions=predictions)
        self._looks += 1
        maps = tuple(seen.features.maps[index] for index in self._levels.values())
        said = seen.confidence
        if said is not None:
            said = {stride: said[self.teacher.strides[index]] for stride, index in self._levels.items()}
        found = seen.boxes
        if found is not None and own.shape != images.shape:
            scale = found.new_tensor([images.shape[3] / own.shape[3], images.shape[2] / own.shape[2]])
            found = torch.cat([found[:, :1], found[:, 1:] * scale.repeat(2)], dim=1)
        return TeacherOutput(Features(maps, self.strides), said, found, seen.predictions)


def _check_said(teacher: Teacher, seen: TeacherOutput, **asked: bool) -> None:
    """Refuse an answer without what was asked for: a term would silently be left out."""
    for word, wanted in asked.items():
        if wanted and getattr(seen, word) is None:
            raise IMAError(
                f"teacher={teacher.name}: was asked for {word} and gave none; expected it of one with predicts=True"
            )


def fit(
    teacher: Teacher,
    strides: Sequence[int],
    channels: int = 3,
    wanted: Sequence[int] | None = None,
    shown: Input | None = None,
) -> View:
    """Match a teacher with a student.

    Args:
        teacher: Frozen teacher.
        strides: The student's, in pixels.
        channels: Of the student's images.
        wanted: If given, the only levels to use.
        shown: How images are made for the teacher; as they are if None.

    Raises:
        IMAError: If the two share no level, or not one that was asked for, or the teacher cannot be shown such images.
    """
    shown = shown or Input()
    check_channels(channels, teacher.input_channels, shown.bands, teacher.name)
    try:
        levels = match_levels(strides, [stride / shown.scale for stride in teacher.strides], wanted)
    except IMAError as error:
        raise IMAError(f"teacher={teacher.name}: {error}") from None
    return View(teacher, levels, shown)


def differences(view: View, strides: Sequence[int], channels: int) -> list[str]:
    """Say what is lost between a student and a teacher, a line each.

    Args:
        view: A teacher fitted to the student.
        strides: All strides of the student.
        channels: Of the student's images.
    """
    teacher, shown = view.teacher, view._shown
    own = [stride / shown.scale for stride in teacher.strides]
    lines = []
    if absent := sorted(set(strides) - set(view.strides)):
        lines.append(f"no level at the student's strides {absent}, which learn from the task alone")
    idle = [_number(stride) for index, stride in enumerate(own) if index not in view._levels.values()]
    if idle:
        lines.append(f"its levels at strides [{', '.join(idle)}] have no counterpart and are left out")
    pairs = [f"{_number(own[index])} for {stride}" for stride, index in view._levels.items() if own[index] != stride]
    if pairs:
        lines.append(f"levels resampled to the student's grid, strides {', '.join(pairs)}")
    source = resampled_from(teacher)
    made = [_number(own[index]) for index in view._levels.values() if teacher.strides[index] != source]
    if source is not None and made:
        one = _number(source / shown.scale)
        lines.append(
            f"has one level, at stride {one}; those at [{', '.join(made)}] are resampled from it and add nothing"
        )
    if shown.scale < 1:
        lines.append(f"sees images at {shown.scale:.2g} times the student's size, so small objects are lost to it")
    if channels != teacher.input_channels or shown.bands is not None:
        bands = picked_bands(channels, teacher.input_channels, shown.bands)
        seen = "grey repeated" if channels == 1 else f"channels {list(bands)}" if bands else "colour made grey"
        lines.append(f"takes {teacher.input_channels} channels of images that have {channels}: {seen}")
    return [f"{teacher.name}: {line}" for line in lines]


def _number(stride: float) -> str:
    return f"{stride:.4g}"


def check_channels(given: int, wanted: int, bands: Sequence[int] | None, name: str) -> None:
    """Refuse images from which a teacher's cannot be made.

    Raises:
        IMAError: If channels that are named do not exist or are not as many as the teacher takes, or none are named and
            there is no sound choice.
    """
    if bands is not None:
        if len(bands) != wanted or max(bands) >= given:
            raise IMAError(
                f"ima_teacher_channels={list(bands)}: expected {wanted} of the data's channels 0 to {given - 1} "
                f"for teacher={name}"
            )
    elif given != wanted and given != 1 and not (given >= wanted == 3) and not (given == 3 and wanted == 1):
        raise IMAError(
            f"teacher={name}: takes {wanted} channels and the data has {given}; "
            f"name {wanted} of them by ima_teacher_channels="
        )


def picked_bands(given: int, wanted: int, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Channels of an image that a teacher is shown; none where they are all shown, mixed or repeated instead.

    Args:
        given: Channels of the image.
        wanted: Channels that the teacher takes.
        bands: Those that a user names.
    """
    if bands is not None:
        return tuple(bands)
    return tuple(range(wanted)) if given > wanted and not (given == 3 and wanted == 1) else ()


def in_channels(images: Tensor, wanted: int, bands: Sequence[int] | None = None) -> Tensor:
    """Make images of as many channels as a teacher takes.

    Named channels are picked. Otherwise grey is repeated, colour is made grey for a teacher that takes one channel, and
    of a multispectral image the first three are taken.

    Args:
        images: (B, C, H, W).
        wanted: Channels to make.
        bands: Channels to pick.

    Returns:
        (B, wanted, H, W).
    """
    given = images.shape[1]
    if picked := picked_bands(given, wanted, bands):
        return images[:, list(picked)]
    if given == wanted:
        return images
    if given == 1:
        return images.expand(-1, wanted, -1, -1)
    return (images * images.new_tensor(LUMA).view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def resized(images: Tensor, scale: float) -> Tensor:
    """Resample images by a factor, the aspect kept; what is made smaller is smoothed first."""
    if scale == 1.0:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    return interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
