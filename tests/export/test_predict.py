"""`predict` on an ONNX file: its lines, its files, its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export.predict import run

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9], [16, 32, 8, 8, 0.5, 0.1]]]).transpose(0, 2, 1)


@pytest.fixture
def model(toy: Callable[..., Path]) -> Path:
    return toy(RAW)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(folder / name), np.zeros((100, 200, 3), np.uint8))
    return folder


def test_lines_pictures_and_exit_code(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, pictures) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"image 1/2 {pictures / 'a.png'}: 200x100 1 disc, 1 square, ")
    assert first.endswith(" ms")
    assert second.startswith("image 2/2 ")
    assert last == f"Results saved to {Path('runs/detect/predict')}"
    assert sorted(p.name for p in Path("runs/detect/predict").iterdir()) == ["a.png", "b.jpg"]
    drawn = cv2.imread("runs/detect/predict/a.png")
    assert drawn.shape == (100, 200, 3)
    assert drawn[50, 50].any()  # the square's left side


def test_labels_and_json(model: Path, pictures: Path) -> None:
    options = {"save": False, "save_txt": True, "save_conf": True, "save_json": True, "project": "out", "name": "x"}
    assert run(model, pictures, **options) == 0
    assert sorted(p.name for p in Path("out/x").iterdir()) == ["labels", "predictions.json"]
    lines = Path("out/x/labels/a.txt").read_text().splitlines()
    assert lines == ["1 0.5 0.5 0.5 0.5 0.9", "0 0.25 0.5 0.125 0.25 0.5"]  # the network's 32x16 px over 0.32
    records = json.loads(Path("out/x/predictions.json").read_text())
    assert [(r["image"], r["width"], r["height"]) for r in records] == [
        (str(pictures / "a.png"), 200, 100),
        (str(pictures / "b.jpg"), 200, 100),
    ]
    assert [d["name"] for d in records[0]["detections"]] == ["square", "disc"]


def test_a_picture_without_detections_has_no_label_file(model: Path, pictures: Path) -> None:
    run(model, pictures, save_txt=True, exist_ok=True)
    assert Path("runs/detect/predict/labels/a.txt").exists()
    run(model, pictures, save_txt=True, exist_ok=True, conf=0.95)
    assert not Path("runs/detect/predict/labels/a.txt").exists()


def test_folders_are_numbered_as_ultralytics_does(model: Path, pictures: Path) -> None:
    from ultralytics.utils.files import increment_path

    for _ in range(3):
        expected = increment_path(Path("runs/detect/predict"))
        run(model, pictures)
        assert expected.is_dir()
    run(model, pictures, exist_ok=True)
    assert len(list(Path("runs/detect").iterdir())) == 3


def test_an_unreadable_picture_is_told_and_the_rest_goes_on(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "aa.png").write_bytes((pictures / "a.png").read_bytes()[:20])
    (pictures / "ab.png").write_bytes(b"")
    assert run(model, pictures) == 1
    lines = capsys.readouterr().out.splitlines()
    reason = "cannot be read, left out (is damaged, or no picture that OpenCV reads)"
    assert lines[1] == f"image 2/4 {pictures / 'aa.png'}: {reason}"
    assert lines[2] == f"image 3/4 {pictures / 'ab.png'}: cannot be read, left out (is empty)"
    assert lines[3].startswith("image 4/4")
    assert lines[4].endswith(", 2 pictures could not be read")
    assert sorted(p.name for p in Path("runs/detect/predict").iterdir()) == ["a.png", "b.jpg"]


def test_the_ending_of_a_file_may_be_in_capitals(
    toy: Callable[..., Path], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(RAW, "TOY.ONNX")
    assert main(["predict", f"model={model}", f"source={pictures / 'a.png'}", "save_txt=True", "threads=1"]) == 0
    assert capsys.readouterr().out.startswith(f"image 1/1 {pictures / 'a.png'}: 200x100 1 disc, 1 square, ")
    assert main(["export", f"model={model}", "kit=True"]) == 0
    assert model.with_name("TOY_kit").is_dir()
    assert main(["predict", "model=GONE.ONNX", "source=a.png"]) == 2
    assert main(["benchmark", "model=GONE.ONNX"]) == 2
    assert main(["benchmark", f"model={model}", "rounds=0"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("ima-yolo: ") for line in told] == [
        "model=GONE.ONNX: no such file",
        "model=GONE.ONNX: no such file",
        "rounds=0: expected a whole number above 0",
    ]


def test_of_several_sources_a_missing_one_is_told_in_its_turn(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"model={model}", f"source={pictures / 'a.png'},gone.png,{pictures / 'b.jpg'}"]) == 1
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"image 1/3 {pictures / 'a.png'}: 200x100")
    assert second == "image 2/3 gone.png: cannot be read, left out (cannot be opened (No such file or directory))"
    assert third.startswith(f"image 3/3 {pictures / 'b.jpg'}: 200x100")
    assert last.endswith(", 1 pictures could not be read")
    assert main(["predict", f"model={model}", "source=gone.png,lost.png"]) == 2
    assert "source=gone.png: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [False, True])
def test_where_nothing_is_saved_no_folder_is_made(
    bad: bool, model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if bad:
        (pictures / "c.png").write_bytes(b"")
    assert run(model, pictures, save=False) == int(bad)
    told = "Nothing was saved, since no save key is on" + (", 1 pictures could not be read" if bad else "")
    assert capsys.readouterr().out.splitlines()[-1] == told
    assert not Path("runs").exists()


def test_two_pictures_of_one_name_and_a_format_that_cannot_be_written(model: Path, pictures: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    cv2.imencode(".bmp", image)[1].tofile(pictures / "a.bmp")
    cv2.imencode(".png", image)[1].tofile(pictures / "c.dng")  # OpenCV goes by the content when it reads
    assert run(model, pictures) == 0
    names = sorted(p.name for p in Path("runs/detect/predict").iterdir())
    assert names == ["a-2.png", "a.bmp", "b.jpg", "c.jpg"]


def test_one_class_and_one_provider_may_be_given_bare(model: Path, pictures: Path) -> None:
    assert run(model, pictures, classes=1, providers="CPUExecutionProvider", threads=1, save_json=True) == 0
    records = json.loads(Path("runs/detect/predict/predictions.json").read_text())
    assert {d["class"] for r in records for d in r["detections"]} == {1}


def test_settings_without_effect_are_told(
    toy: Callable[..., Path], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy(np.zeros((1, 3, 6)), end2end="True"), pictures, iou=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: iou= and agnostic_nms= have no effect")
    assert "200x100 (no detections), " in lines[1]
    run(toy(np.zeros((1, 3, 6)), args="{'nms': True}"), pictures, conf=0.01)
    assert capsys.readouterr().out.startswith("note: below the conf= that the file was exported with, conf= has no eff")
    run(toy(np.zeros((1, 64, 64)), task="semantic"), pictures, save_coco=True)
    assert capsys.readouterr().out.startswith("note: save_coco=True has no effect")


@pytest.mark.parametrize("name", ["/", "a" * 300])
def test_a_name_that_no_folder_can_have(name: str, model: Path, pictures: Path) -> None:
    with pytest.raises(IMAError, match="cannot be made"):
        run(model, pictures, name=name)


def test_nothing_read_leaves_no_folder(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes(b"")
    assert run(model, "a.png", save_csv=True) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing was saved, 1 pictures could not be read"
    assert not Path("runs").exists()
    Path("runs").mkdir()
    run(model, "a.png", save_csv=True)
    assert list(Path("runs").iterdir()) == []
    Path("runs/mine").mkdir()
    run(model, "a.png", save_csv=True, project="runs", name="mine", exist_ok=True)
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing was saved, 1 pictures could not be read"
    assert Path("runs/mine").is_dir()


def test_lists_as_they_are_typed(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"source={pictures / 'b.jpg'},{pictures / 'a.png'}", "providers=CPUExecutionProvider", "classes=0,1"]
    assert main(["predict", f"model={model}", *words, "threads=1", "save=False"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [
        f"image {n}/2 {pictures / f}" for n, f in ((1, "b.jpg"), (2, "a.png"))
    ]
    assert main(["predict", f"model={model}", words[0], "providers=NoSuch,CPUExecutionProvider"]) == 2
    assert capsys.readouterr().err.startswith("ima-yolo: providers=['NoSuch']: not in this ONNX Runtime, available: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cnof": 0.5}, r"^cnof= is not a setting of predict, did you mean conf=\?"),
        ({"sorce": "x"}, r"did you mean source=\?"),
        ({"conf": 1.5}, "^conf=1.5"),
        ({"iou": "high"}, "^iou='high'"),
        ({"batch": 0}, "^batch=0: expected a whole number above 0"),
        ({"max_frames": 1.5}, "^max_frames=1.5"),
        ({"imgsz": 96}, "^imgsz=96: .* leave imgsz= out, or export it again with imgsz=96 or with dynamic=True"),
        ({"source": []}, r"^source=\[\]"),
        ({"source": {"a": 1}}, "^source={'a': 1}: expected a file"),
        ({"save_txt": "yes"}, "^save_txt='yes': expected True or False"),
        ({"name": ""}, "^name='': expected a folder name"),
        ({"threads": -1}, "^threads=-1"),
        ({"classes": [5]}, r"^classes=\[5\]"),
        ({"source": "nowhere"}, "^source=nowhere"),
        ({"source": None}, "^source= is missing"),
        ({"model": "nowhere.onnx"}, "^model=nowhere.onnx"),
    ],
)
def test_bad_settings_write_nothing(model: Path, pictures: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(IMAError, match=message):
        run(**{"model": model, "source": pictures, **options})
    assert not Path("runs").exists()


def test_an_unwritable_project(model: Path, pictures: Path) -> None:
    Path("file").write_text("in the way")
    with pytest.raises(IMAError, match="choose another project="):
        run(model, pictures, project="file")


@pytest.mark.parametrize("suffix", [".pbm", ".pgm", ".ppm"])
def test_a_grey_format_does_not_hold_the_drawn_picture(suffix: str, model: Path, tmp_path: Path) -> None:
    grey = np.zeros((40, 60) if suffix != ".ppm" else (40, 60, 3), np.uint8)
    cv2.imencode(suffix, grey)[1].tofile(tmp_path / f"x{suffix}")
    assert run(model, tmp_path / f"x{suffix}", conf=0.05) == 0
    (drawn,) = Path("runs/detect/predict").iterdir()
    assert drawn.suffix == (".ppm" if suffix == ".ppm" else ".jpg")
    assert np.ptp(cv2.imread(str(drawn)).astype(int), axis=2).max() > 50  # in colour


def test_a_side_too_long_for_its_format(model: Path, tmp_path: Path) -> None:
    cv2.imencode(".png", np.zeros((70000, 2, 3), np.uint8))[1].tofile(tmp_path / "x.jpg")
    assert run(model, tmp_path / "x.jpg") == 0
    assert [path.name for path in Path("runs/detect/predict").iterdir()] == ["x.png"]


def test_a_video_that_cannot_be_written_becomes_pictures_and_the_rest_goes_on(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imencode(".gif", np.zeros((1, 1, 3), np.uint8))[1].tofile(pictures / "aa.gif")  # too small for the encoder
    assert run(model, pictures) == 0
    assert "image 3 " in capsys.readouterr().out
    assert sorted(p.name for p in Path("runs/detect/predict").iterdir()) == ["a.png", "aa_0.png", "b.jpg"]


def test_many_pictures_of_one_name(model: Path, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        cv2.imwrite(str(tmp_path / str(number) / ("a.png" if number != 1 else "a-2.png")), np.zeros((9, 9), np.uint8))
    assert run(model, str(tmp_path / "*" / "a*.png")) == 0
    names = sorted(p.name for p in Path("runs/detect/predict").iterdir())
    assert names == ["a-2.png", "a-3.png", "a-4.png", "a.png"]
