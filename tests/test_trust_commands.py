"""What every command opens was looked through before: data sets, checkpoints of any name, architectures, studies."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO

from ima_yolo import cli
from ima_yolo.experiment.arms import Arm
from ima_yolo.experiment.study import Study
from ima_yolo.files import write_json

SCRIPT = "train: gone\nval: gone\nnames: [a]\ndownload: open('touched', 'w')\n"


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched").absolute(),))


@pytest.fixture(autouse=True)
def _nothing_runs_or_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a network call")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not (tmp_path / "touched").exists()


@pytest.fixture
def poisoned(tiny_data: Path, tmp_path: Path) -> Path:
    """`data.yaml` of a set whose cache of validation labels is a pickle with code."""
    root = Path(shutil.copytree(tiny_data.parent, tmp_path / "set", ignore=shutil.ignore_patterns("*.cache")))
    data = root / "data.yaml"
    data.write_text(data.read_text().replace(str(tiny_data.parent), str(root)))
    with (root / "labels" / "val.cache").open("wb") as file:
        np.save(file, np.array({"labels": Code()}, dtype=object))
    return data


def said(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("ima-yolo: ")
    return line


def commands(checkpoint: Path, teacher: Path) -> dict[str, list[str]]:
    model, imgsz = f"model={checkpoint}", "imgsz=64"
    return {
        "val": ["val", model, imgsz, "device=cpu"],
        "teachers": ["teachers", f"student={checkpoint}", f"candidates={teacher}", imgsz],
        "int8": ["export", model, imgsz, "quantize=8", "calibration_images=4"],
        "another format": ["export", model, imgsz, "format=torchscript"],
        "compare": ["compare", f"teacher={teacher}", f"student={checkpoint}", imgsz, "epochs=1", "project=a"],
        "train": ["train", f"teacher={teacher}", f"student={checkpoint}", imgsz, "epochs=1", "project=a"],
    }


@pytest.mark.parametrize("name", commands(Path(), Path()))
def test_no_command_runs_what_lies_in_a_data_set(
    name: str, poisoned: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    words = commands(tiny_checkpoint(), tiny_checkpoint("yolo26s-few.yaml", seed=1))[name]
    assert "val.cache: refused, since it carries code" in said([*words, f"data={poisoned}"], capfd)
    Path("script.yaml").write_text(SCRIPT)
    assert "a script, which is not run" in said([*words, "data=script.yaml"], capfd)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A checkpoint that has learned nothing, and beside it pictures of two classes in folders."""
    path, rng = tmp_path / "sorted.pt", np.random.default_rng(0)
    YOLO("yolo26n-cls.yaml", verbose=False).save(path)
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "pictures" / part / name / "0.png"), rng.integers(0, 255, (40, 40, 3), np.uint8))
    return path


def poison(cache: Path) -> None:
    with cache.open("wb") as file:
        np.save(file, np.array({"hash": Code()}, dtype=object))


@pytest.mark.parametrize("place", ["pictures/val.cache", "pictures/train.cache", "pictures_split/val.cache"])
def test_no_cache_of_a_classifier_is_run(place: str, classifier: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["val", f"model={classifier}", "data=pictures", "imgsz=32", "device=cpu", "project=runs"]
    assert cli.main(words) == 0
    (classifier.parent / place).parent.mkdir(exist_ok=True)
    poison(classifier.parent / place)
    assert "cache: refused, since it carries code" in said(words, capfd)
    shutil.make_archive("pictures", "zip", "pictures")
    assert "unpack it first" in said([word.replace("=pictures", "=pictures.zip") for word in words], capfd)


@pytest.mark.parametrize("link", ["train.cache", "train/a/0.npy"])
def test_nothing_is_written_through_a_link_of_a_classifier(
    link: str, classifier: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (classifier.parent / "pictures" / link).symlink_to(classifier.parent / "new")
    words = ["val", f"model={classifier}", "data=pictures", "imgsz=32", "device=cpu", "project=runs", "split=train"]
    assert f"{link}: a link out of its folder" in said([*words, "cache=disk"], capfd)
    assert not (classifier.parent / "new").exists()


def test_a_folder_of_pictures_may_be_called_anything(classifier: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = shutil.move("pictures", "pictures.yml")
    Path(folder, "data.yaml").write_text("train: train\nval: val\nnames: [a, b]\n")
    poison(Path(folder, "val.cache"))
    words = ["val", f"model={classifier}", f"data={folder}", "imgsz=32", "device=cpu", "project=runs"]
    assert "val.cache: refused, since it carries code" in said(words, capfd)


def test_what_a_list_of_images_becomes_is_looked_at(
    tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics copies what the list says of itself into the data set's description."""
    Path("made.yaml").write_text(SCRIPT)
    monkeypatch.setattr("ima_yolo.data_set.convert_ndjson_to_yolo_if_needed", lambda *_, **__: "made.yaml")
    for data in ("http://localhost/x.ndjson", "ul://a/datasets/b"):
        line = said(["val", f"model={tiny_checkpoint()}", f"data={data}", "imgsz=64"], capfd)
        assert "a script, which is not run" in line


def test_a_name_that_is_a_suffix_alone_is_that_of_a_checkpoint(
    tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save({**torch.load(tiny_checkpoint(), weights_only=False), "modelopt": [1]}, "pt")
    assert "is not what quantize=8 writes" in said(["predict", "model=pt", "source=x.png"], capfd)


def test_a_layer_that_lacks_something_costs_one_line(
    tiny_checkpoint: Callable[..., Path], tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_checkpoint(), weights_only=False)
    del content["model"].model[0]._modules["act"]
    torch.save(content, "bad.pt")
    cv2.imwrite("x.png", np.zeros((64, 64, 3), np.uint8))
    for words in (["predict", "source=x.png"], ["val", f"data={tiny_data}", "device=cpu"]):
        line = said([*words, "model=bad.pt", "imgsz=64"], capfd)
        assert "the model is not built as an Ultralytics model is ('Conv' object has no attribute 'act')" in line
    student = f"student={tiny_checkpoint()}"
    line = said(["train", "teacher=bad.pt", student, f"data={tiny_data}", "imgsz=64", "project=runs"], capfd)
    assert "bad.pt: cannot be fused, or look at an image ('Conv' object has no attribute 'act')" in line


@pytest.mark.parametrize("form", ["rknn", "litert", "openvino"])
def test_no_format_runs_a_script(
    form: str, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("script.yaml").write_text(SCRIPT)
    words = ["export", f"model={tiny_checkpoint()}", "imgsz=64", f"format={form}", "quantize=8", "data=script.yaml"]
    assert "a script, which is not run" in said(words, capfd)


@pytest.mark.parametrize("words", [["val"], ["predict", "source=x.png"], ["export", "format=torchscript"]])
def test_the_case_of_a_suffix_changes_nothing(
    words: list[str], tiny_data: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(tiny_checkpoint(), weights_only=False)
    torch.save({**content, "modelopt": [1]}, "SENT.PT")
    data = [f"data={tiny_data}"] if words == ["val"] else []
    assert "is not what quantize=8 writes" in said([*words, "model=SENT.PT", *data, "imgsz=64"], capfd)


@pytest.mark.parametrize("words", [["val"], ["predict", "source=x.png"], ["export", "format=torchscript"]])
def test_an_architecture_is_looked_through(
    words: list[str], tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    layer = "[-1, 200, Conv, [8192, 3, 1]]"
    Path("wide.yaml").write_text(f"nc: 3\nbackbone: [{layer}]\nhead: [[[0], 1, Detect, [nc]]]\n")
    data = [f"data={tiny_data}"] if words == ["val"] else []
    assert "model=wide.yaml: refused, since it describes 1" in said([*words, "model=wide.yaml", *data], capfd)


@pytest.mark.parametrize(
    ("data", "task", "reason"),
    [
        ("imagenette160", "classify", "it would fetch its data; if that is yours, add data=imagenette160"),
        ("https:/localhost/x.zip", "classify", "it would fetch its data"),
        (None, "detect", "data= is missing: this checkpoint does not say what it was trained on"),
        (None, "classify", "data= is missing: this checkpoint"),
    ],
)
def test_a_model_that_is_validated_fetches_nothing(
    data: str | None,
    task: str,
    reason: str,
    tiny_checkpoint: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    saved = torch.load(tiny_checkpoint(), weights_only=False)
    saved["train_args"] = {"imgsz": 64} if data is None else {"data": data, "imgsz": 64}
    saved["model"].task = task
    torch.save(saved, "sent.pt")
    assert reason in said(["val", "model=sent.pt", "device=cpu"], capfd)


@pytest.fixture
def sent(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Study:
    """A finished study of one training, with its checkpoint, as somebody may send it."""
    places = {"teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1)), "data": str(tiny_data)}
    study = Study(tmp_path / "sent", {"holdout": None}, {"imgsz": 64}, places, (Arm("none", "none"),), (0,))
    study.save()
    (job,) = study.jobs()
    score = {"map50_95": 0.5, "map50": 0.5, "map75": 0.5, "last_map50_95": 0.5, "map50_95_of_class": {}}
    kept = {"arm": "none", "seed": 0, "settings": {}, "code": {}, "epochs": 1, "seconds": 1.0, "resumed": []}
    seen = {"data_digest": "d", "initial_digest": "i", "device": "cpu", "curves": [{"epoch": 1.0}]}
    write_json(study.result_path(job), {**kept, **score, **seen})
    study.weights(job).parent.mkdir(parents=True)
    shutil.copyfile(tiny_checkpoint(), study.weights(job))
    return study


def test_a_study_that_was_sent_runs_nothing(
    sent: Study, poisoned: Path, tiny_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (job,) = sent.jobs()
    content = torch.load(sent.weights(job), weights_only=False)
    torch.save({**content, "modelopt": [1]}, sent.weights(job))
    cases = {str(tiny_data): "is not what quantize=8 writes", str(poisoned): "carries code"}
    Path("script.yaml").write_text(SCRIPT)
    for data, reason in {**cases, "https://localhost:9/d.zip": "not fetched", "script.yaml": "not run"}.items():
        write_json(sent.folder / "places.json", {**sent.places, "data": data})
        assert cli.main(["report", f"study={sent.folder}"]) == 0
        lines = "".join(capfd.readouterr())
        assert f"the report goes without details of {job.name}: " in lines
        assert reason in lines
        assert not (sent.folder / "efficiency.json").exists()


DAMAGED = {
    "study.json": ["[]", '{"made_of": 5}', '{"made_of": {}}', '{"made_of": {}, "common": {}, "arms": [{"name": "a"}]}'],
    "places.json": ["5", "[1]"],
    "results/none-seed0.json": ["5", "{}", '{"arm": "none"}', '{"arm": "none", "seed": 0}', '{"arm": "a", "seed": 0}'],
}


@pytest.mark.parametrize(("file", "content"), [(file, text) for file, texts in DAMAGED.items() for text in texts])
def test_a_damaged_study_costs_one_line(
    file: str, content: str, sent: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    (sent.folder / file).write_text(content)
    line = said(["report", f"study={sent.folder}"], capfd)
    assert f"{'study' if file == 'places.json' else Path(file).stem}.json: " in line


HOSTILE = {
    "too deep": lambda path: path.write_text("[" * 200_000),
    "endless": lambda path: path.write_text(path.read_text().replace('"seeds": [\n  0', '"seeds": [\n  Infinity')),
    "too large": lambda path: os.truncate(path, 60 * 2**30),  # sparse: it takes no room
    "a list": lambda path: path.write_text("[]"),
    "shared by nothing": lambda path: path.write_text('{"made_of": 5, "common": {}, "code": {}}'),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_study_costs_one_line(
    case: str, sent: Study, tiny_data: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    HOSTILE[case](sent.folder / "study.json")
    assert "study.json: " in said(["report", f"study={sent.folder}"], capfd)
    words = commands(tiny_checkpoint(), Path(sent.places["teacher"]))["compare"][:-1]
    line = said([*words, f"data={tiny_data}", f"project={sent.folder.parent}", "name=sent", "arms=none,ima"], capfd)
    assert "/sent" in line


def test_an_arm_without_a_name_of_letters(sent: Study, capfd: pytest.CaptureFixture[str]) -> None:
    content = json.loads((sent.folder / "study.json").read_text())
    content["arms"][0]["name"] = 5
    (sent.folder / "study.json").write_text(json.dumps(content))
    assert "study.json: is damaged (arms)" in said(["report", f"study={sent.folder}"], capfd)
