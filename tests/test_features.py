from __future__ import annotations

import pytest
import torch
from torch import nn

from ima_yolo.errors import IMAError
from ima_yolo.features import Features, match_levels, same_size, tap


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = Head()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head([image, image * 2, torch.zeros(1)])


class Head(nn.Module):
    calls = 0

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        self.calls += 1
        return maps[0] + maps[1]


def test_strides_come_from_the_image_and_the_maps() -> None:
    features = Features.of_image([torch.zeros(2, 3, 8, 10), torch.zeros(2, 5, 4, 5)], height=64)
    assert features.strides == (8, 16)
    assert features.channels == (3, 5)
    assert features.at(16) is features.maps[1]


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 0, 4), (1, 3, 65, 65)])
def test_what_is_no_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(IMAError, match="feature map"):
        Features.of_image([torch.zeros(shape)], height=64)


@pytest.mark.parametrize(
    ("student", "teacher", "wanted", "shared"),
    [
        ([8, 16, 32], [8, 16, 32], None, {8: 0, 16: 1, 32: 2}),
        ([8, 16, 32], [4, 8, 16, 32, 64], None, {8: 1, 16: 2, 32: 3}),
        ([16, 32], [8, 16], None, {16: 1}),
        ([8, 16, 32], [32, 16, 8], (32, 8), {8: 2, 32: 0}),
        ([8, 16, 32], [7, 14, 28], None, {8: 0, 16: 1, 32: 2}),  # patches of 14 px
        ([8, 16, 32], [16 / 3, 32 / 3, 64 / 3], None, {8: 1, 16: 2}),  # a teacher at 1.5 times the size
        ([8, 16], [4, 5.6], None, None),
    ],
)
def test_levels_are_matched_by_stride(student: list[int], teacher: list[int], wanted, shared) -> None:
    if shared is None:
        with pytest.raises(IMAError, match="no feature level matches"):
            match_levels(student, teacher, wanted)
    else:
        assert match_levels(student, teacher, wanted) == shared


def test_no_common_level_is_an_error_that_shows_both() -> None:
    with pytest.raises(IMAError, match=r"\[8\], the teacher's \[16\]"):
        match_levels([8], [16])
    with pytest.raises(IMAError, match="stride 4 is not shared"):
        match_levels([8, 16], [8, 16], [4])


def test_tap_catches_the_maps_and_leaves_no_hook() -> None:
    model, image = Detector(), torch.ones(1, 1, 4, 4)
    with tap(model.head, 2) as caught:
        output = model(image)
    assert len(caught.maps) == 2
    assert caught.maps[0] is image
    assert torch.equal(output, image * 3)
    assert caught.output is output
    assert not model.head._forward_pre_hooks
    assert not model.head._forward_hooks


def test_tap_that_stops_never_reaches_the_head() -> None:
    model = Detector()
    with tap(model.head, 2, stop=True) as caught:
        model(torch.ones(1, 1, 4, 4))
    assert model.head.calls == 0
    assert caught.output is None
    assert len(caught.maps) == 2


def test_tap_lets_errors_through_and_leaves_no_hook() -> None:
    model = Detector()
    with pytest.raises(KeyError), tap(model.head, 2):
        raise KeyError
    assert not model.head._forward_pre_hooks


def test_same_size_keeps_a_fitting_map_and_resamples_another() -> None:
    fitting, student = torch.randn(1, 2, 4, 6), torch.randn(1, 3, 4, 6)
    assert same_size(fitting, student) is fitting
    constant = torch.full((1, 2, 8, 12), 3.0)
    assert torch.equal(same_size(constant, student), torch.full((1, 2, 4, 6), 3.0))
