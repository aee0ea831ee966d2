"""Teachers of every host: their levels, their input, and the lines that refuse what cannot teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ima_yolo.errors import IMAError
from ima_yolo.features import Features
from ima_yolo.teachers import Teacher, TeacherOutput
from ima_yolo.teachers.load import check_maps, is_file, load_teacher
from ima_yolo.teachers.module import ModuleTeacher, pyramid
from ima_yolo.teachers.torchvision import IMAGENET_MEAN, IMAGENET_STD
from ima_yolo.teachers.view import differences, fit

FAMILIES = {
    "yolov3-tinyu": (16, 32),
    "yolov5nu": (8, 16, 32),
    "yolov5n-p6": (8, 16, 32, 64),
    "yolov6n": (8, 16, 32),
    "yolov8n-p2": (4, 8, 16, 32),
    "yolov8n-ghost-p6": (8, 16, 32, 64),
    "yolov9t": (8, 16, 32),
    "yolov10n": (8, 16, 32),
    "yolo11n": (8, 16, 32),
    "yolo12n": (8, 16, 32),
    "yolo26n-p2": (4, 8, 16, 32),
    "yolo26n-p6": (8, 16, 32, 64),
    "yolov8n-worldv2": (8, 16, 32),
    "yoloe-11n": (8, 16, 32),
    "yoloe-26n-seg": (8, 16, 32),
    "yolov8n-rtdetr": (8, 16, 32),
    "rtdetr-l": (8, 16, 32),
    "yolo26n-seg": (8, 16, 32),
    "yolo26n-sem": (8, 16),
    "yolo26n-pose": (8, 16, 32),
    "yolo26n-obb": (8, 16, 32),
}


def image(*size: int) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_ultralytics_shows_its_levels(family: str, tmp_path: Path) -> None:
    from ultralytics import RTDETR, YOLO

    config = family.replace("nu", "n").replace("tinyu", "tiny") + ".yaml"
    (RTDETR if "rtdetr" in family else YOLO)(config).save(tmp_path / f"{family}.pt")
    teacher = load_teacher(str(tmp_path / f"{family}.pt"))
    assert teacher.strides == FAMILIES[family]
    features = teacher(image(72, 104)).features  # sides that no stride but 8 divides
    assert [tuple(level.shape[2:]) for level in features.maps] == [(-(-72 // s), -(-104 // s)) for s in teacher.strides]
    assert tuple(level.shape[1] for level in features.maps) == teacher.channels


MADE = "has one level, at stride {}; those at [{}] are resampled from it and add nothing"


def lost(teacher: Teacher) -> list[str]:
    """What a training with this teacher says of its differences to a student of strides 8, 16 and 32."""
    return differences(fit(teacher, (8, 16, 32)), (8, 16, 32), 3)


DETECTORS = {
    "retinanet_resnet50_fpn": (8, 16, 32, 64, 128),
    "fcos_resnet50_fpn": (8, 16, 32, 64, 128),
    "fasterrcnn_mobilenet_v3_large_fpn": (32, 64),
    "maskrcnn_resnet50_fpn": (4, 8, 16, 32, 64),
}


@pytest.mark.parametrize("architecture", DETECTORS)
def test_a_torchvision_detector_shows_its_pyramid_of_normalized_images(architecture: str, caplog) -> None:
    teacher = load_teacher(f"torchvision:{architecture}")
    assert teacher.strides == DETECTORS[architecture]
    assert teacher.channels == (256,) * len(teacher.strides)
    assert "has random weights" in caplog.text
    images = image(64, 128)
    backbone = teacher._model
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = list(backbone((images - mean) / std).values())[-len(teacher.strides) :]
    for level, other in zip(teacher(images).features.maps, expected, strict=True):
        assert torch.allclose(level, other[:, :, : level.shape[2], : level.shape[3]], atol=1e-5)


@pytest.mark.parametrize("architecture", ["deeplabv3_resnet101", "fcn_resnet50"])
def test_a_torchvision_segmenter_shows_what_its_last_layer_classifies(architecture: str) -> None:
    teacher = load_teacher(f"torchvision:{architecture}")
    assert teacher.strides == (8, 16, 32)
    maps = teacher(image(64, 96)).features.maps
    assert [tuple(level.shape[2:]) for level in maps] == [(8, 12), (4, 6), (2, 3)]
    assert lost(teacher) == [f"{teacher.name}: {MADE.format(8, '16, 32')}"]
    assert torch.allclose(maps[1], nn.functional.avg_pool2d(maps[0], 2), atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision:fasterrcnn_mobilenet_v3_large_fpn", "timm:resnet18"])
def test_random_weights_are_the_same_each_time_and_the_global_stream_is_left_alone(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="the extra `timm` is not installed")
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        digests.add(load_teacher(name).digest())
        assert torch.equal(torch.rand(3), expected)
    assert len(digests) == 1


def test_a_torchvision_teacher_takes_the_weights_of_a_detector_of_other_classes(tmp_path: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(3)
    own = get_model("fcos_resnet50_fpn", weights=None, weights_backbone=None, num_classes=4)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    teacher = load_teacher("torchvision:fcos_resnet50_fpn", str(tmp_path / "own.pth"))
    state = teacher._model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in own.backbone.state_dict().items())


TIMM = {
    "resnet18": (4, 8, 16, 32),
    "swin_tiny_patch4_window7_224": (4, 8, 16, 32),
    "deit_tiny_patch16_224": (8, 16, 32),
}


@pytest.mark.parametrize("architecture", TIMM)
def test_a_timm_backbone_shows_its_levels(architecture: str) -> None:
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    teacher = load_teacher(f"timm:{architecture}")
    assert teacher.strides == TIMM[architecture]
    lines = [f"{teacher.name}: {MADE.format(16, '8, 32')}"] if architecture == "deit_tiny_patch16_224" else []
    assert [line for line in lost(teacher) if "resampled" in line] == lines
    maps = teacher(image(64, 96)).features.maps
    assert [tuple(level.shape[2:]) for level in maps] == [(64 // s, 96 // s) for s in teacher.strides]


@pytest.mark.parametrize("architecture", ["mixer_s32_224", "beit_base_patch16_224"])
def test_a_timm_backbone_of_one_size_is_a_line_that_names_it(architecture: str) -> None:
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    with pytest.raises(IMAError) as caught:
        load_teacher(f"timm:{architecture}")
    line = str(caught.value)
    assert line.startswith(f"teacher=timm:{architecture}: cannot look at an image of 256 px (Input height (256)")
    assert "it takes images of 224 x 224 px and a teacher is shown those of its student: use a network that" in line
    assert "\n" not in line


def test_weights_of_a_timm_backbone_come_from_a_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")
    torch.manual_seed(4)
    own = timm.create_model("resnet18", num_classes=5)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    teacher = load_teacher("timm:resnet18", str(tmp_path / "own.pth"))
    assert torch.equal(teacher._model.body.state_dict()["layer3.0.conv1.weight"], own.layer3[0].conv1.weight)


def test_a_file_that_fills_a_timm_backbone_only_in_part_is_refused(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")
    state = timm.create_model("resnet18", num_classes=5).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "renamed.pth")
    torch.save({key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}, tmp_path / "part.pth")
    with pytest.raises(IMAError, match=r"renamed.pth: lacks 20 of 20 layers of teacher=timm:resnet18, conv1.weight"):
        load_teacher("timm:resnet18", str(tmp_path / "renamed.pth"))
    with pytest.raises(IMAError, match=r"part.pth: lacks 1 of 20 layers of teacher=timm:resnet18, layer2.0.conv1"):
        load_teacher("timm:resnet18", str(tmp_path / "part.pth"))


def test_a_pyramid_of_one_grid() -> None:
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    finer, same, coarser = pyramid(grid, finer=1, coarser=1)
    assert same is grid
    assert finer.shape == (1, 1, 8, 8)
    assert coarser[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


class Pool(nn.Module):
    """Maps of the strides 8 and 16 whose values are known."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [nn.functional.avg_pool2d(images, stride) for stride in (16, 8)]


def test_any_module_can_teach_with_its_own_range_and_channel_order() -> None:
    mean, std = (0.1, 0.2, 0.3), (1 / 255,) * 3  # a network of 0 to 255, blue first
    teacher = ModuleTeacher("mine", Pool(), mean=mean, std=std, bgr=True)
    images = torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert teacher.strides == (8, 16)
    seen = teacher(images).features.at(8)[0, :, 0, 0]
    assert seen.tolist() == pytest.approx([(0.7 - 0.1) * 255, (0.6 - 0.2) * 255, (0.5 - 0.3) * 255], rel=1e-4)


class Fixed(nn.Module):
    """Returns what it was given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: torch.Tensor) -> Any:
        return self.output(images) if callable(self.output) else self.output


BAD_MAPS = {
    "no tensor": (["x"], "gave str as a feature map"),
    "a vector": ([torch.zeros(1, 8)], r"gave shape (1, 8) as a feature map; expected a tensor (B, C, H, W)"),
    "a stride that does not divide": ([torch.zeros(1, 8, 19, 19)], "19 x 19 cells does not divide an image of 256 px"),
    "not alike in both": ([torch.zeros(1, 8, 16, 8)], "16 x 8 cells does not divide"),
    "a number": (3, "gave int for a batch; expected a list or dictionary of (B, C, H, W) maps"),
    "a scalar": (torch.tensor(3.0), "gave a tensor of shape () for a batch; expected a list or dictionary of (B, C,"),
    "a map alone": (torch.zeros(1, 8, 32, 32), "gave a tensor of shape (1, 8, 32, 32) for a batch; expected a list or"),
    "a scalar in a list": ([torch.tensor(3.0)], "gave shape () as a feature map; expected a tensor (B, C, H, W)"),
    "a word": ("maps", "gave str for a batch; expected a list or dictionary of (B, C, H, W) maps"),
}


@pytest.mark.parametrize("case", BAD_MAPS)
def test_maps_that_cannot_be_used_are_one_line(case: str) -> None:
    output, message = BAD_MAPS[case]
    with pytest.raises(IMAError) as caught:
        ModuleTeacher("mine", Fixed(output))
    assert message in str(caught.value)
    assert str(caught.value).startswith("teacher=mine")


class Loose:
    """A `Teacher` whose answer is chosen by the test."""

    name, strides, channels, class_names, input_channels, predicts = "loose", (8,), (3,), None, 3, False

    def __init__(self, answer: Any = None, **changed: Any) -> None:
        self.answer = answer
        self.__dict__.update(changed)

    def to(self, device: torch.device) -> Loose:
        return self

    def digest(self) -> str:
        return ""

    def __call__(self, images: torch.Tensor, *asked: bool) -> Any:
        return self.answer(images) if callable(self.answer) else self.answer


def output(level: torch.Tensor, strides: tuple[int, ...] = (8,)) -> TeacherOutput:
    return TeacherOutput(Features((level,), strides))


BAD_OUTPUT = {
    "no output": ([torch.zeros(1, 3, 4, 4)], "gave list for a batch; expected TeacherOutput"),
    "other strides": (output(torch.zeros(1, 3, 4, 4), (16,)), "gave 1 maps of strides [16]; expected [8]"),
    "other channels": (output(torch.zeros(1, 4, 4, 4)), "is (4, 4, 4) for an image of 32 x 32 px; expected (3, 4, 4)"),
    "other size": (output(torch.zeros(1, 3, 5, 4)), "is (3, 5, 4)"),
    "NaN": (output(torch.full((1, 3, 4, 4), float("nan"))), "NaN or infinite"),
    "infinite": (output(torch.full((1, 3, 4, 4), float("inf"))), "NaN or infinite"),
    "gradient": (output(torch.zeros(1, 3, 4, 4, requires_grad=True)), "carries a gradient"),
    "fewer images": (output(torch.zeros(3, 3, 4, 4)), "its map of stride 8 is of 3 images; expected 1"),
    "whole numbers": (output(torch.zeros(1, 3, 4, 4, dtype=torch.int64)), "holds int64; expected floating-point"),
    "complex numbers": (output(torch.zeros(1, 3, 4, 4, dtype=torch.complex64)), "holds complex64; expected floating"),
}


@pytest.mark.parametrize("case", BAD_OUTPUT)
def test_an_answer_that_breaks_a_teacher_s_promise_is_one_line(case: str) -> None:
    answer, message = BAD_OUTPUT[case]
    with pytest.raises(IMAError) as caught:
        check_maps(Loose(), answer, (1, 3, 32, 32))
    assert message in str(caught.value)
    assert str(caught.value).startswith("teacher=loose")
    check_maps(Loose(), output(torch.zeros(1, 3, 4, 4)), (1, 3, 32, 32))


GOOD = """
import torch
from ima_yolo.teachers.module import ModuleTeacher
from torch import nn

class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
    def forward(self, images):
        return {s: nn.functional.avg_pool2d(self.conv(images), s) for s in (8, 16)}

def build():
    return ModuleTeacher("mine", Pool())

def fails():
    raise RuntimeError("no weights here")

def number():
    return 3

def careless():
    teacher = build()
    teacher.strides = (16, 8)
    return teacher

def poisoned():
    model = Pool()
    nn.init.constant_(model.conv.weight, float("nan"))
    return ModuleTeacher("mine", model)

def exits():
    raise SystemExit(3)

value = 5
"""


def test_a_function_of_one_s_own_gives_a_teacher(tmp_path: Path) -> None:
    (tmp_path / "good_zoo.py").write_text(GOOD)
    teacher = load_teacher("good_zoo:build")
    assert (teacher.strides, teacher.channels) == ((8, 16), (5, 5))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing_zoo:build", "missing_zoo cannot be imported"),
        ("zoo:gone", "zoo has no function 'gone'"),
        ("zoo:value", "zoo has no function 'value'"),
        ("zoo:fails", "fails() failed (no weights here)"),
        ("zoo:number", "returned int, which lacks strides"),
        ("zoo:careless", "strides=(16, 8); expected a tuple of whole numbers, finest first"),
        ("zoo:exits", "exits() failed (it exits with 3)"),
        ("zoo:poisoned", "NaN or infinite values; check its weights"),
    ],
)
def test_a_function_that_gives_the_wrong_thing_is_one_line(function: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.py").write_text(GOOD)
    with pytest.raises(IMAError) as caught:
        load_teacher(function)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("strides", None),
        ("strides", 8),
        ("strides", (8.0, 16.0)),
        ("channels", None),
        ("channels", (True, 5)),
        ("input_channels", True),
        ("name", None),
        ("class_names", ["cell"]),
        ("class_names", 5),
        ("predicts", None),
        ("resampled_from", 32),
        ("resampled_from", "16"),
    ],
)
def test_an_attribute_of_the_wrong_kind_is_one_line(word: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "zoo_wrong.py").write_text(
        f"{GOOD}\ndef wrong():\n    t = build()\n    t.{word} = {value!r}\n    return t\n"
    )
    __import__("sys").modules.pop("zoo_wrong", None)
    with pytest.raises(IMAError) as caught:
        load_teacher("zoo_wrong:wrong")
    assert str(caught.value).startswith(f"teacher=zoo_wrong:wrong: {word}={value!r}; expected ")


def test_a_script_that_exits_when_it_is_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "script_zoo.py").write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(IMAError, match=r"teacher=script_zoo:build: script_zoo cannot be imported \(it exits with 2\)"):
        load_teacher("script_zoo:build")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("torchvision:retinanet_resnet50_fnp", None, "in torchvision (did you mean 'retinanet_resnet50_fpn'?)"),
        ("torchvision:ssdlite320_mobilenet_v3_large", None, "has no feature pyramid"),
        ("torchvision:lraspp_mobilenet_v3_large", None, "has no feature pyramid"),
        ("torchvision:fcos_resnet50_fpn", "COCO_V9", "expected COCO_V1, DEFAULT or a file"),
        ("torchvision:fcos_resnet50_fpn", "gone.pth", "ima_teacher_weights=gone.pth: no such file"),
        ("timm:resnet_18", None, "no such model in timm"),
        ("timm:resnet18", "best", "expected pretrained or a file"),
        ("yolo26n.pt", "DEFAULT", "has weights of its own; leave the key out"),
    ],
)
def test_what_a_host_does_not_know_is_one_line(name: str, weights: str | None, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="the extra `timm` is not installed")
    with pytest.raises(IMAError) as caught:
        load_teacher(name, weights)
    assert message in str(caught.value)


def test_weights_that_do_not_fit_or_carry_code_are_refused(tmp_path: Path) -> None:
    torch.save({"backbone.x": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "code.pth")
    with pytest.raises(IMAError, match=r"backbone\..* and others do not fit teacher=torchvision:fcos_resnet50_fpn"):
        load_teacher("torchvision:fcos_resnet50_fpn", str(tmp_path / "other.pth"))
    with pytest.raises(IMAError, match=r"no state dictionary inside|more than plain weights"):
        load_teacher("torchvision:fcos_resnet50_fpn", str(tmp_path / "code.pth"))


def test_without_timm_its_teachers_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(IMAError, match=r"pip install '\.\[timm\]'"):
        load_teacher("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("yolo26m.pt", True),
        ("C:\\models\\a.pt", True),
        ("https://x.org/a.pt", True),
        ("a.b:c", False),
        ("timm:x", False),
    ],
)
def test_which_names_are_files(name: str, file: bool) -> None:
    assert is_file(name) is file
