"""Bad input costs one line and leaves no trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from ima_yolo import IMATrainer
from ima_yolo.config import validate
from ima_yolo.data_set import images_in
from ima_yolo.errors import IMAError
from ima_yolo.pairing import name_the_same, teachers_located
from ima_yolo.plain_yaml import read_plain
from ima_yolo.preflight import prepare, resume_path


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1)),
        "student": str(tiny_checkpoint()),
        "data": str(tiny_data),
        "project": str(tmp_path / "runs"),
        "epochs": 1,
        "imgsz": 64,
    }


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def hostile(path: Path) -> str:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path.with_suffix(".touched"),))

    torch.save({"model": Code()}, path)
    return str(path)


def classifier(path: Path) -> str:
    YOLO("yolo26n-cls.yaml").save(path)
    return str(path)


def segmenter(path: Path) -> str:
    YOLO("yolo26n-seg.yaml").save(path)
    return str(path)


def picture(path: Path) -> str:
    path.parent.mkdir()
    cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    return str(path)


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "no teacher": (lambda tmp: {"teacher": None}, "teacher= is missing"),
    "missing teacher": (lambda tmp: {"teacher": "gone.pt"}, "teacher=gone.pt: file not found"),
    "corrupt teacher": (lambda tmp: {"teacher": write(tmp / "t.pt", "x")}, "t.pt: the file is empty, truncated"),
    "hostile teacher": (lambda tmp: {"teacher": hostile(tmp / "t.pt")}, "refused, since it carries code"),
    "classifier as teacher": (lambda tmp: {"teacher": classifier(tmp / "c.pt")}, "classification model"),
    "no student": (lambda tmp: {"student": None}, "student= is missing"),
    "missing student": (lambda tmp: {"student": "gone.pt"}, "student=gone.pt: file not found"),
    "missing architecture": (lambda tmp: {"student": "gone.yaml"}, "student=gone.yaml"),
    "architecture of a classifier": (lambda tmp: {"student": "yolo26n-cls.yaml"}, "a model with a Classify head"),
    "architecture with text": (lambda tmp: {"student": "yolov8n-worldv2.yaml"}, "a model with a WorldDetect head"),
    "corrupt student": (lambda tmp: {"student": write(tmp / "s.pt", "x")}, "s.pt: the file is empty, truncated"),
    "hostile student": (lambda tmp: {"student": hostile(tmp / "s.pt")}, "refused, since it carries code"),
    "classifier as student": (lambda tmp: {"student": classifier(tmp / "c.pt")}, "a model for classify"),
    "regions of boxes": (lambda tmp: {"ima_instance": "region"}, "known for task semantic alone"),
    "no teacher between commas": (lambda tmp: {"teacher": ","}, "names nothing between its commas"),
    "one of two teachers missing": (
        lambda tmp: {"teacher": "torchvision:fcos_resnet50_fpn,gone.pt"},
        "teacher=gone.pt: file not found",
    ),
    "shares of other teachers": (
        lambda tmp: {"ima_teacher_shares": "1,2"},
        "needs 1 numbers above 0",
    ),
    "size of the teacher's images": (lambda tmp: {"ima_teacher_imgsz": 16}, "ima_teacher_imgsz=16"),
    "negative channels": (lambda tmp: {"ima_teacher_channels": "-1,0,1"}, "counted from 0"),
    "heads at two sizes": (lambda tmp: {"ima_cls": 1, "ima_teacher_imgsz": 128}, "of an image of 128 px"),
    "student of another kind": (lambda tmp: {"student": "model.onnx"}, "expected a checkpoint (.pt)"),
    "no data": (lambda tmp: {"data": None}, "data= is missing"),
    "missing data": (lambda tmp: {"data": "gone.yaml"}, "data=gone.yaml"),
    "empty data": (lambda tmp: {"data": write(tmp / "d.yaml", "")}, "d.yaml"),
    "data without images": (
        lambda tmp: {
            "notes": [write(tmp / part / "notes.txt", "") for part in "tv"],
            "data": write(tmp / "d.yaml", "train: t\nval: v\nnames: [a]\n"),
        },
        "no images for 'train'",
    ),
    "misspelt own key": (lambda tmp: {"ima_wieght": 1}, "did you mean 'ima_weight'?"),
    "misspelt key": (lambda tmp: {"epohcs": 1}, "'epohcs' is not a setting (did you mean 'epochs'?)"),
    "misspelt teacher": (lambda tmp: {"techer": "x.pt"}, "did you mean 'teacher'?"),
    "own value out of range": (lambda tmp: {"ima_mask_ratio": 2}, "ima_mask_ratio=2"),
    "value out of range": (lambda tmp: {"close_mosaic": "soon"}, "close_mosaic"),
    "fraction out of range": (lambda tmp: {"fraction": 3.0}, "fraction"),
    "no epochs": (lambda tmp: {"epochs": 0}, "epochs=0"),
    "unknown optimizer": (lambda tmp: {"optimizer": "foo"}, "optimizer=foo: expected one of auto,"),
    "a negative batch": (lambda tmp: {"batch": -5}, "batch=-5: expected a whole number"),
    "an image size in words": (lambda tmp: {"imgsz": "big"}, "imgsz=big: expected whole pixels"),
    "more layers frozen than there are": (lambda tmp: {"freeze": 99}, "freeze=99: the student has layers 0 to 8"),
    "a class that is not there": (lambda tmp: {"classes": [3]}, "classes=[3]: the data has classes 0 to 2"),
    "no classes in common once they are one": (
        lambda tmp: {"single_cls": True, "ima_cls": 1},
        "knows none of the data's classes",
    ),
    "half precision on a processor": (lambda tmp: {"amp": "bf16", "device": "cpu"}, "amp=bf16"),
    "unknown device": (lambda tmp: {"device": "99"}, "device"),
    "another task": (lambda tmp: {"task": "segment"}, "a model for detect, but segment is to be trained"),
    "a split that is not there": (lambda tmp: {"split": "test"}, "'test:' images not found"),
    "several data sets": (lambda tmp: {"data": ["a.yaml", "b.yaml"]}, "data= is a list"),
    "missing pretrained": (lambda tmp: {"pretrained": "gone.pt"}, "pretrained=gone.pt: file not found"),
    "hostile pretrained": (lambda tmp: {"pretrained": hostile(tmp / "p.pt")}, "refused, since it carries code"),
    "no shared level": (lambda tmp: {"ima_levels": 64}, "stride 64 is not shared"),
    "head of a segmenter": (
        lambda tmp: {"teacher": segmenter(tmp / "s.pt"), "ima_objects": "teacher"},
        "read the head of an Ultralytics detector",
    ),
    "heads with other cells": (
        lambda tmp: {"student": "yolov8n-p2.yaml", "ima_cls": 1},
        "the heads have different cells, at strides [4, 8, 16, 32] and [8, 16, 32]",
    ),
    "two distillations": (lambda tmp: {"distill_model": "t.pt"}, "distill_model= is Ultralytics' own"),
    "project is a file": (lambda tmp: {"project": write(tmp / "file", "x") + "/runs"}, "project="),
    "project is read-only": (lambda tmp: {"project": "/proc/runs"}, "project="),
    "a teacher that is an object": (
        lambda tmp: {"teacher": object()},
        "expected the name of a file, not an object of type object",
    ),
    "a student that is an object": (
        lambda tmp: {"student": DetectionModel("yolo26n.yaml", verbose=False)},
        "student=: expected the name of a file, not an object of type DetectionModel",
    ),
    "a folder of images that is not there": (lambda tmp: {"ima_unlabelled": "gone"}, "no such folder"),
    "an image in place of a folder of images": (
        lambda tmp: {"ima_unlabelled": picture(tmp / "pool" / "0.png")},
        "0.png: expected a folder of images, or a text file that lists them",
    ),
    "heads of teachers that have none": (
        lambda tmp: {"teacher": segmenter(tmp / "s.pt"), "ima_cls": 1},
        "ima_cls, ima_box: ",
    ),
    "a word for a weight": (lambda tmp: {"ima_cls": "much"}, "must be 'auto' or a number from 0 up"),
    "resuming a folder that is no run": (lambda tmp: {"resume": True, "student": str(tmp)}, "no checkpoint at"),
    "nothing to resume": (lambda tmp: {"resume": "gone.pt"}, "resume: no checkpoint at 'gone.pt'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case: str, options: dict[str, Any], tmp_path: Path) -> None:
    change, message = BAD[case]
    changed = {**options, **change(tmp_path)}
    changed.pop("notes", None)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(IMAError) as caught:
        IMATrainer(overrides=changed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_images_of_other_channels_are_made_the_teacher_s_or_refused(
    options: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    def data(channels: int) -> str:
        return write(tmp_path / f"{channels}.yaml", tiny_data.read_text() + f"channels: {channels}\n")

    assert prepare({**options, "data": data(1)}).teachers[0].input_channels == 3
    with pytest.raises(IMAError, match=r"takes 3 channels and the data has 2; name 3 of them"):
        prepare({**options, "data": data(2)})
    with pytest.raises(IMAError, match=r"ima_teacher_channels=\[3, 4, 5\]: expected 3 of the data's channels 0 to 4"):
        prepare({**options, "data": data(5), "ima_teacher_channels": "3,4,5"})


def test_what_lies_in_the_folder_of_a_refused_run_stays(options: dict[str, Any], tmp_path: Path) -> None:
    precious = Path(write(tmp_path / "runs" / "mine" / "precious.txt", "x"))
    with pytest.raises(IMAError, match="stride 64 is not shared"):
        IMATrainer(overrides={**options, "name": "mine", "exist_ok": True, "ima_levels": 64}).train()
    assert [path.name for path in precious.parent.iterdir()] == ["precious.txt"]


def test_models_are_found_by_their_stem_and_from_another_folder(options: dict[str, Any], monkeypatch) -> None:
    teacher = Path(options["teacher"])
    monkeypatch.chdir(teacher.parent)
    plan = prepare({**options, "teacher": teacher.name, "student": "yolo26n.yaml"})
    assert plan.settings.teacher == str(teacher)
    assert plan.overrides["model"] == "yolo26n.yaml"


def test_a_published_teacher_is_named_by_the_file_that_it_became(
    options: dict[str, Any], tmp_path, monkeypatch
) -> None:
    """A name is all there is before the download; a resumed run or another process needs the place."""
    source = Path(options["teacher"]).read_bytes()

    def download(file: str, **_: Any) -> str:
        if not Path(file).exists():  # it is asked for every file
            Path(file).write_bytes(source)
        return file

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", download)
    plan = prepare({**options, "teacher": "yolo26s.pt"})
    assert plan.settings.teacher == str(tmp_path / "yolo26s.pt")


def test_good_input_passes(options: dict[str, Any]) -> None:
    plan = prepare(options)
    assert plan.settings.teacher == options["teacher"]
    assert plan.overrides["model"] == options["student"]
    assert plan.teachers[0].strides == (8, 16, 32)


def test_teachers_serve_again_where_the_same_are_named(options: dict[str, Any], tiny_checkpoint) -> None:
    first = prepare(options)
    assert prepare({**options, "ima_mask_ratio": 0.3}, loaded=first).teachers is first.teachers
    for other in ({"ima_teacher_conf": 0.5}, {"teacher": str(tiny_checkpoint(seed=7))}):
        assert prepare({**options, **other}, loaded=first).teachers[0] is not first.teachers[0]
    random, published = (
        validate({"teacher": "torchvision:resnet18", "ima_teacher_weights": own}) for own in (None, "DEFAULT")
    )
    assert name_the_same(random, random)
    assert not name_the_same(random, published)


def test_resuming_what_is_no_distillation_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(IMAError, match="not a checkpoint of a distillation"):
        prepare({"resume": True, "model": options["student"]})


def test_resuming_what_is_finished_is_refused(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "plots": False, "workers": 0, "val": False})
    trainer.train()
    with pytest.raises(IMAError, match="finished, nothing to resume"):
        prepare({"resume": True, "model": str(trainer.last)})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"ima_loss": "cwd", "ima_mask": "none"}, "without effect beside the other settings: ima_mask"),
        ({"ima_box": 0, "ima_balance": 1}, "without effect beside the other settings: ima_balance"),
        ({"ima_teacher_conf": 0.5}, "without effect beside the other settings: ima_teacher_conf"),
        ({"ima_deflation_floor": 0.5, "ima_unlabelled_ratio": 2}, "ima_deflation_floor, ima_unlabelled_ratio"),
        ({"teacher": ("a", "b")}, "was trained on other classes"),
    ],
)
def test_what_may_be_meant_is_a_warning(options, extra, message, tiny_checkpoint, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.preflight.LOGGER.warning", said.append)
    if "teacher" in extra:
        extra = {"teacher": str(tiny_checkpoint("yolo26s-few.yaml", names=extra["teacher"]))}
    prepare({**options, **extra})
    assert any(message in line for line in said)


def test_links_that_lead_back_are_refused_before_they_are_searched(tmp_path: Path) -> None:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "a.png").touch()
    (tmp_path / "images" / "beside").symlink_to(tmp_path / "images" / "deep")
    assert len(list(images_in(str(tmp_path / "images")))) == 2, "links as such are followed"
    for name in ("a", "b"):
        (tmp_path / "images" / "deep" / name).symlink_to(tmp_path / "images")
    with pytest.raises(IMAError, match="a link that leads back"):
        list(images_in(str(tmp_path / "images")))


def test_a_pipe_in_the_place_of_a_yaml_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.yaml")
    for path in (tmp_path / "data.yaml", Path("/dev/zero"), tmp_path):
        with pytest.raises(IMAError, match=f"data={path}: expected a file"):
            read_plain(path, "data")


def test_images_of_folders_and_lists(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/deep/2.PNG", "a/notes.txt", "b/3.bmp"):
        write(tmp_path / name, "x")
    listed = write(tmp_path / "list.txt", f"./b/3.bmp\n\n{tmp_path / 'a/1.jpg'}\n")
    assert [path.name for path in images_in(str(tmp_path / "a"))] == ["1.jpg", "2.PNG"]
    assert [path.name for path in images_in([listed, str(tmp_path / "b")])] == ["3.bmp", "1.jpg", "3.bmp"]
    assert list(images_in(str(tmp_path / "nowhere"))) == []


def test_a_head_that_knows_no_class_is_refused(options: dict[str, Any], tiny_checkpoint: Callable[..., Path]) -> None:
    stranger = tiny_checkpoint("yolo26s-few.yaml", names=("cat", "dog"))
    with pytest.raises(IMAError, match="knows none of the data's classes"):
        prepare({**options, "teacher": stranger, "ima_box": 1})


def test_a_run_is_resumed_by_its_folder_and_never_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima_yolo.preflight.get_latest_run", lambda: str(latest))
    latest, other = (tmp_path / name / "weights/last.pt" for name in ("latest", "other"))
    for file in (latest, other):
        write(file, "")
    assert resume_path({"resume": True, "model": str(tmp_path / "other")}) == other
    assert resume_path({"resume": str(tmp_path / "other")}) == other
    assert resume_path({"resume": True}) == resume_path({"resume": True, "model": "yolo26n.yaml"}) == latest
    with pytest.raises(IMAError, match="no checkpoint at 'gone'"):
        resume_path({"resume": True, "model": "gone"})


def test_names_of_files_may_hold_commas(tmp_path: Path) -> None:
    for name in ("a,b.pt", "c.pt"):
        (tmp_path / name).touch()
    first, second = f"{tmp_path}/a,b.pt", f"{tmp_path}/c.pt"
    assert validate({"teacher": f"{first}, {second},gone.pt"}).teachers == (first, second, "gone.pt")
    assert teachers_located([first, second]) == f"{first},{second}"
