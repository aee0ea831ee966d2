from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import ClassificationModel, DetectionModel
from ultralytics.utils import nms

from ima_yolo import host
from ima_yolo.errors import IMAError


def build(config: str = "yolo26n.yaml") -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(config, nc=3, verbose=False)
    model.args = get_cfg()
    return model


@pytest.mark.parametrize(
    ("config", "strides"),
    [
        ("yolov3-tiny.yaml", (16, 32)),
        ("yolov5n.yaml", (8, 16, 32)),
        ("yolov8n-p2.yaml", (4, 8, 16, 32)),
        ("yolov8n-p6.yaml", (8, 16, 32, 64)),
        ("yolov10n.yaml", (8, 16, 32)),
        ("yolo26n.yaml", (8, 16, 32)),
    ],
)
def test_probe_finds_the_neck_of_every_family(config: str, strides: tuple[int, ...]) -> None:
    assert host.probe(DetectionModel(config, nc=3, verbose=False)).strides == strides


def test_probe_leaves_mode_and_statistics_alone() -> None:
    model = build()
    model.model[0].eval()  # a frozen layer among training ones
    before = {name: value.clone() for name, value in model.state_dict().items()}
    host.probe(model)
    assert model.training
    assert not model.model[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_classifier_has_no_neck() -> None:
    with pytest.raises(IMAError, match="no feature pyramid"):
        host.neck(ClassificationModel("yolo26n-cls.yaml", nc=3, verbose=False))


@pytest.mark.parametrize(
    ("version", "warns"), [("8.4.190", False), ("8.4.0", True), ("8.5.0", True), ("9.0.0rc1", True)]
)
def test_a_version_outside_the_tested_range_warns(version: str, warns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(host.LOGGER, "warning", said.append)
    host.check_version(version)
    assert bool(said) is warns


class Touch:
    """A pickle that writes a file when it is loaded the ordinary way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def damaged(tmp_path: Path, kind: str, good: Path) -> Path:
    path = tmp_path / f"{kind}.pt"
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "empty":
        path.touch()
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "no_model":
        torch.save({"model": None}, path)
    elif kind == "hostile":
        torch.save({"model": Touch(tmp_path / "touched")}, path)
    return path


@pytest.mark.parametrize("kind", ["missing", "truncated", "text", "empty", "list", "no_model", "hostile"])
def test_a_bad_checkpoint_is_one_line(tmp_path: Path, tiny_checkpoint: Callable[..., Path], kind: str) -> None:
    path = damaged(tmp_path, kind, tiny_checkpoint())
    with pytest.raises(IMAError) as caught:
        host.load_model(path, "teacher")
    assert f"teacher={path}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists(), "no code in a checkpoint may run"


def test_a_good_checkpoint_loads(tiny_checkpoint: Callable[..., Path]) -> None:
    model, checkpoint = host.load_model(tiny_checkpoint(), "teacher")
    assert type(model) is DetectionModel
    assert host.task_of(model) == "detect"
    assert host.class_names(model) == {0: "disc", 1: "square", 2: "triangle"}
    assert "train_args" in checkpoint or "model" in checkpoint


def test_ultralytics_keys_include_those_it_renames() -> None:
    assert host.is_ultralytics_key("epochs")
    assert not host.is_ultralytics_key("epohcs")


@pytest.mark.parametrize("config", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_the_boxes_that_ultralytics_decodes(config: str, training: bool) -> None:
    from ultralytics.utils.ops import xywh2xyxy

    model = build(config).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded, raw = model(images)
        said = host.predictions(model.model[-1], raw if training else (decoded, raw))
    assert torch.allclose(said.boxes, xywh2xyxy(decoded[:, :4].transpose(1, 2)), atol=1e-3)
    assert torch.allclose(said.scores.sigmoid(), decoded[:, 4:].transpose(1, 2), atol=1e-5)


def test_a_head_without_cells_has_no_predictions() -> None:
    with pytest.raises(IMAError, match="no scores and boxes for every cell"):
        host.predictions(nn.Identity(), [torch.zeros(1)])


def test_what_cannot_be_downloaded_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(host, "torch_safe_load", fail)
    with pytest.raises(IMAError, match=r"teacher=yolo26m\.pt: the file is not here and could not be downloaded"):
        host.load_model("yolo26m.pt", "teacher")


@pytest.mark.parametrize("name", ["yolov5n.pt", "yolov3-tiny.pt"])
def test_a_file_that_ultralytics_takes_for_another_is_named(name: str) -> None:
    Path(name).write_bytes(b"PK")
    with pytest.raises(
        IMAError, match=rf"teacher={name}: Ultralytics takes this name for yolov.*u.pt; rename the file"
    ):
        host.load_model(name, "teacher")


def test_unhurried_nms_keeps_the_boxes_of_every_image_however_slow_the_machine(monkeypatch) -> None:
    clock = itertools.count(step=1000)
    monkeypatch.setattr("ultralytics.utils.nms.time", SimpleNamespace(time=lambda: next(clock)))
    found = torch.zeros(3, 5, 10)  # (B, 4 + K, A)
    found[:, :4] = torch.arange(10) * 30.0 + 10
    found[:, 4] = 0.9
    limited = [len(boxes) for boxes in nms.non_max_suppression(found)]
    assert limited[1:] == [0, 0], "Ultralytics gives up after the first image"
    with host.unhurried_nms():
        assert all(len(boxes) > 0 for boxes in nms.non_max_suppression(found))
    assert [len(boxes) for boxes in nms.non_max_suppression(found)] == limited
