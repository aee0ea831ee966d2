"""What a teacher is shown of a student's images, and which of its maps stand for the student's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ima_yolo.errors import IMAError
from ima_yolo.features import Features
from ima_yolo.teachers import TeacherOutput
from ima_yolo.teachers.view import Input, differences, fit, in_channels, resized


class Teacher:
    """Shows the mean of each cell in each channel, and remembers what it was shown."""

    name, class_names, predicts = "mean", None, True

    def __init__(self, strides: tuple[int, ...] = (8, 16, 32), input_channels: int = 3) -> None:
        self.strides, self.input_channels = strides, input_channels
        self.channels = (input_channels,) * len(strides)
        self.shown: torch.Tensor | None = None

    def to(self, device: torch.device) -> Teacher:
        return self

    def digest(self) -> str:
        return ""

    def __call__(self, images: torch.Tensor, confidence: bool = False, boxes: bool = False, *_: Any) -> TeacherOutput:
        self.shown = images
        maps = [torch.nn.functional.avg_pool2d(images, stride, ceil_mode=True) for stride in self.strides]
        said = {stride: level[:, :1] for stride, level in zip(self.strides, maps, strict=True)}
        found = torch.tensor([[0.0, 10, 20, 30, 40]])
        return TeacherOutput(
            Features(tuple(maps), self.strides), said if confidence else None, found if boxes else None
        )


def image(channels: int = 3, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_equal_networks_see_the_same_and_nothing_is_said() -> None:
    view = fit(Teacher(), (8, 16, 32))
    seen = view(image())
    assert torch.equal(view.teacher.shown, image())
    assert view.strides == seen.features.strides == (8, 16, 32)
    assert differences(view, (8, 16, 32), 3) == []


def test_a_teacher_at_twice_the_size_gives_its_coarser_levels() -> None:
    view = fit(Teacher((8, 16, 32, 64)), (8, 16, 32), shown=Input(2.0))
    seen = view(image(), confidence=True, boxes=True)
    assert view.teacher.shown.shape == (2, 3, 128, 192)
    assert [tuple(level.shape[2:]) for level in seen.features.maps] == [(8, 12), (4, 6), (2, 3)]
    assert sorted(seen.confidence) == [8, 16, 32]
    assert seen.boxes.tolist() == [[0, 5, 10, 15, 20]], "in pixels of the student's image"
    assert differences(view, (8, 16, 32), 3) == ["mean: its levels at strides [4] have no counterpart and are left out"]


def test_a_teacher_at_another_size_gives_its_nearest_levels() -> None:
    view = fit(Teacher(), (8, 16, 32), shown=Input(0.75))
    assert view.strides == (8, 16, 32)
    said = differences(view, (8, 16, 32), 3)
    assert "mean: levels resampled to the student's grid, strides 10.67 for 8, 21.33 for 16, 42.67 for 32" in said
    assert any("0.75 times the student's size, so small objects are lost" in line for line in said)


def test_a_level_without_counterpart_is_said() -> None:
    view = fit(Teacher((8, 16)), (4, 8, 16))
    assert view.strides == (8, 16)
    assert differences(view, (4, 8, 16), 3) == [
        "mean: no level at the student's strides [4], which learn from the task alone"
    ]


def test_levels_that_are_made_of_another_are_said_where_they_are_used() -> None:
    teacher = Teacher((8, 16, 32, 64))
    teacher.resampled_from = 16
    assert differences(fit(teacher, (8, 16, 32)), (8, 16, 32), 3)[-1] == (
        "mean: has one level, at stride 16; those at [8, 32] are resampled from it and add nothing"
    )
    twice = fit(teacher, (8, 16, 32), shown=Input(2.0))
    assert differences(twice, (8, 16, 32), 3)[-1] == (
        "mean: has one level, at stride 8; those at [16, 32] are resampled from it and add nothing"
    )
    alone = fit(teacher, (8, 16, 32), wanted=(16,))
    assert not any("resampled from it" in line for line in differences(alone, (8, 16, 32), 3))


@pytest.mark.parametrize("height", [64, 72])
def test_the_aspect_is_kept(height: int) -> None:
    assert resized(image(height=height), 1.5).shape[2:] == (height * 3 // 2, 144)
    flat = torch.full((1, 3, 64, 96), 0.4)
    assert torch.allclose(resized(flat, 0.5), torch.full((1, 3, 32, 48), 0.4))


def test_channels_are_converted_in_the_way_that_loses_least() -> None:
    colour, grey = image(), image(1)
    assert in_channels(colour, 3) is colour
    assert torch.equal(in_channels(grey, 3), torch.cat([grey, grey, grey], dim=1))
    made = in_channels(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1), 1)
    assert made.item() == pytest.approx(0.299 + 0.587 / 2)
    many = image(6)
    assert torch.equal(in_channels(many, 3), many[:, :3])
    assert torch.equal(in_channels(many, 3, (4, 2, 0)), many[:, [4, 2, 0]])


@pytest.mark.parametrize(
    ("given", "bands", "line"),
    [
        (1, None, "takes 3 channels of images that have 1: grey repeated"),
        (6, None, "takes 3 channels of images that have 6: channels [0, 1, 2]"),
        (6, (5, 3, 1), "takes 3 channels of images that have 6: channels [5, 3, 1]"),
    ],
)
def test_what_becomes_of_the_channels_is_said(given: int, bands: tuple[int, ...] | None, line: str) -> None:
    view = fit(Teacher(), (8, 16, 32), given, shown=Input(1.0, bands))
    assert f"mean: {line}" in differences(view, (8, 16, 32), given)
    assert view(image(given)).features.channels == (3, 3, 3)


def test_a_grey_teacher_of_colour_is_said() -> None:
    view = fit(Teacher(input_channels=1), (8, 16, 32))
    assert differences(view, (8, 16, 32), 3) == ["mean: takes 1 channels of images that have 3: colour made grey"]


@pytest.mark.parametrize(
    ("channels", "wanted", "bands", "message"),
    [(2, 3, None, "takes 3 channels and the data has 2"), (4, 3, (0, 1), "expected 3 of the data's channels 0 to 3")],
)
def test_channels_that_cannot_be_made_are_refused(channels: int, wanted: int, bands: Any, message: str) -> None:
    with pytest.raises(IMAError, match=message):
        fit(Teacher(input_channels=wanted), (8,), channels, shown=Input(1.0, bands))


def test_a_pair_without_a_common_level_names_the_teacher() -> None:
    with pytest.raises(IMAError, match=r"teacher=mean: no feature level matches: .* \[4\], the teacher's \[32\]"):
        fit(Teacher((32,)), (4,))


def test_maps_that_turn_nan_are_refused_while_training() -> None:
    view = fit(Teacher(), (8,))
    with pytest.raises(IMAError, match="teacher=mean: its map of stride 8 holds NaN"):
        view(torch.full((1, 3, 64, 64), float("nan")))


def test_a_teacher_that_fails_at_some_sizes_is_one_line_and_want_of_memory_is_passed_on() -> None:
    class Fails(Teacher):
        error: Exception = AssertionError("height (12) must be divisible by window (8)")

        def __call__(self, *_: Any) -> TeacherOutput:
            raise self.error

    view = fit(Fails(), (8,))
    with pytest.raises(IMAError, match=r"^teacher=mean: cannot look at images of 64 x 96 px \(height \(12\) must"):
        view(image())
    for error in (torch.OutOfMemoryError("no room"), RuntimeError("DefaultCPUAllocator: out of memory"), MemoryError()):
        Fails.error = error
        with pytest.raises(type(error)) as caught:
            view(image())
        assert caught.value is error


def test_a_teacher_that_does_not_say_what_it_promises_is_refused() -> None:
    with pytest.raises(IMAError, match="teacher=mean: was asked for predictions and gave none"):
        fit(Teacher(), (8,))(image(), predictions=True)


def test_every_answer_is_of_the_images_that_were_shown() -> None:
    """Not the first one alone: a function may do otherwise later."""

    class Shrinks(Teacher):
        looks = 0

        def __call__(self, images: torch.Tensor, *asked: Any, **named: Any) -> TeacherOutput:
            self.looks += 1
            return super().__call__(images if self.looks < 3 else images[:1], *asked, **named)

    view = fit(Shrinks(), (8, 16, 32))
    for _ in range(2):
        view(image())
    with pytest.raises(IMAError, match=r"teacher=mean: its map of stride 8 is of 1 images; expected 2"):
        view(image())
