"""What is written beside the pictures: tables, COCO records and videos, from numbers worked out by hand."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export.masks import Masks
from ima_yolo.export.predict import run
from ima_yolo.export.preprocess import Letterbox
from ima_yolo.export.records import RecordFile
from ima_yolo.export.results import Detections

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9], [16, 32, 8, 8, 0.5, 0.1]]]).transpose(0, 2, 1)
NAMES = {0: "disc", 1: "square"}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten grey frames of 200x100 px."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (200, 100))
    assert writer.isOpened()
    for level in range(10):
        writer.write(np.full((100, 200, 3), 20 * level, np.uint8))
    writer.release()
    return path


def found(**more: object) -> Detections:
    boxes = np.array([[20, 10, 60, 30]], np.float32)
    return Detections(boxes, np.array([0.75], np.float32), np.array([1]), NAMES, (100, 200), **more)


def square_mask() -> Masks:
    """A mask of 4x4 px at (4, 20) of a 64x64 input that shows a 200x100 picture at 0.32, 16 rows below its top."""
    return Masks([np.ones((4, 4), bool)], np.array([[4, 20]]), Letterbox.fit((100, 200), (64, 64)))


def test_csv_and_coco(toy: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("000042.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), np.zeros((100, 200, 3), np.uint8))
    assert run(toy(RAW), tmp_path / "in", save=False, save_csv=True, save_coco=True) == 0
    rows = list(csv.DictReader(Path("runs/detect/predict/predictions.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert (rows[0]["name"], rows[0]["class"], rows[0]["frame"]) == ("square", "1", "")
    assert [round(float(rows[0][key])) for key in ("x1", "y1", "x2", "y2")] == [50, 25, 150, 75]
    records = json.loads(Path("runs/detect/predict/coco.json").read_text())
    assert [record["image_id"] for record in records] == [42, 42, "b", "b"]
    assert records[0]["bbox"] == pytest.approx([50, 25, 100, 50], abs=1e-3)
    assert (records[0]["category_id"], records[0]["score"]) == (2, 0.9)


def test_two_pictures_of_one_number_have_ids_of_their_own(toy: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("01.png", "1.png"):
        cv2.imwrite(str(tmp_path / "in" / name), np.zeros((100, 200, 3), np.uint8))
    assert run(toy(RAW), tmp_path / "in", save=False, save_coco=True) == 0
    records = json.loads(Path("runs/detect/predict/coco.json").read_text())
    assert [(r["image_id"], Path(r["file_name"]).name) for r in records] == [(1, "01.png")] * 2 + [("1", "1.png")] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_name_that_is_no_text_is_spelt_out(
    toy: Callable[..., Path], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = video.parent / "odd"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((100, 200, 3), np.uint8))
    for name, source in ((b"b\xff.png", folder / "a.png"), (b"c\xff.avi", video)):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(source.read_bytes())
    formats = [f"{key}=True" for key in ("save_csv", "save_json", "save_coco", "save_txt")]
    code = main(["predict", f"model={toy(RAW)}", f"source={folder}", "max_frames=1", *formats])
    assert len(list(csv.DictReader(Path("runs/detect/predict/predictions.csv").read_text().splitlines()))) >= 4
    assert [Path(r["image"]).name for r in json.loads(Path("runs/detect/predict/predictions.json").read_text())][
        :2
    ] == [
        "a.png",
        "b\udcff.png",
    ]
    assert Path("runs/detect/predict/labels", r"b\udcff.txt").is_file()
    assert (code == 0) is ("cannot be read" not in capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["video", "records"])
def test_what_does_not_fit_the_disk_is_one_line(
    kind: str, toy: Callable[..., Path], video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands for a full disk: both fail in the write."""
    resource = pytest.importorskip("resource")
    model, before = toy(RAW), resource.getrlimit(resource.RLIMIT_FSIZE)
    options = {"save": True} if kind == "video" else {"save": False, "save_json": True, "save_coco": True}
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(IMAError) as caught:
            run(model, video, verbose=False, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "written" in str(caught.value)
    if kind == "records":
        seen = json.loads(Path("runs/detect/predict/predictions.json").read_text())
        assert [record["frame"] for record in seen] == list(range(len(seen)))
        assert 0 < len(seen) < 10
        json.loads(Path("runs/detect/predict/coco.json").read_text())


def test_records_are_whole_at_any_time_and_kept_nowhere_else(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "a.json")
    for count in range(4):
        assert json.loads((tmp_path / "a.json").read_text()) == [{"n": n} for n in range(count)]
        file.add([{"n": count}])
    file.add([])
    file.add([{"n": 4}, {"n": 5}])
    file.close()
    assert json.loads((tmp_path / "a.json").read_text()) == [{"n": n} for n in range(6)]
    assert vars(file).keys() == {"_file", "_end"}


def test_frames_of_a_video(
    toy: Callable[..., Path], video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(toy(RAW), video, save_txt=True, save_json=True, vid_stride=3, batch=2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split()[-1] for line in lines[:-1]] == ["0", "3", "6", "9"]
    folder = Path("runs/detect/predict")
    assert sorted(p.name for p in (folder / "labels").iterdir()) == [f"clip_{n}.txt" for n in (0, 3, 6, 9)]
    assert [record["frame"] for record in json.loads((folder / "predictions.json").read_text())] == [0, 3, 6, 9]
    drawn = cv2.VideoCapture(str(folder / "clip.mp4"))
    count = 0
    while drawn.read()[0]:
        count += 1
    assert (count, drawn.get(cv2.CAP_PROP_FRAME_WIDTH)) == (4, 200)


def test_a_video_is_left_after_max_frames_and_the_next_goes_on(
    toy: Callable[..., Path], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = video.with_name("other.avi")
    other.write_bytes(video.read_bytes())
    assert run(toy(RAW), [str(video), str(other)], save=False, max_frames=2) == 0
    assert [line.split(":")[0].split("/")[-1] for line in capsys.readouterr().out.splitlines()[:-1]] == [
        "clip.avi frame 0",
        "clip.avi frame 1",
        "other.avi frame 0",
        "other.avi frame 1",
    ]


def test_a_video_that_is_named_twice_has_two_results(toy: Callable[..., Path], video: Path) -> None:
    assert run(toy(RAW), [str(video), str(video)], save_txt=True, max_frames=2) == 0
    folder = Path("runs/detect/predict")
    assert sorted(file.name for file in folder.glob("*.mp4")) == ["clip-2.mp4", "clip.mp4"]
    assert sorted(file.stem for file in (folder / "labels").iterdir()) == ["clip-2_0", "clip-2_1", "clip_0", "clip_1"]


@pytest.mark.parametrize("first", ["clip", "picture"])
def test_a_picture_named_as_a_frame_has_labels_of_its_own(
    first: str, toy: Callable[..., Path], video: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "clip_0.png"
    cv2.imwrite(str(picture), np.zeros((50, 80, 3), np.uint8))
    sources = [str(video), str(picture)] if first == "clip" else [str(picture), str(video)]
    assert run(toy(RAW), sources, save_txt=True, save_coco=True, save=False, max_frames=1) == 0
    names = {path.stem for path in Path("runs/detect/predict/labels").iterdir()}
    assert names == ({"clip_0", "clip_0-1"} if first == "clip" else {"clip_0", "clip-1_0"})
    assert {record["image_id"] for record in json.loads(Path("runs/detect/predict/coco.json").read_text())} == names


def test_a_damaged_video_is_told_and_the_rest_goes_on(
    toy: Callable[..., Path], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video.with_name("a.avi").write_bytes(b"no video")
    assert run(toy(RAW), str(video.parent / "*.avi"), save=False, max_frames=1) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.endswith("a.avi: cannot be read, left out (cannot be opened as a video, stream or camera)")
    assert "clip.avi frame 0: 200x100" in second
    assert last.endswith("1 pictures could not be read")


def test_masks_in_every_form() -> None:
    # Network pixels 4..7 by 20..23 less 16 rows over 0.32: x 12.5 to 21.875, y 12.5 to 21.875.
    result = found(masks=square_mask())
    assert [entry["segments"]["x"] for entry in result.to_dicts()] == [[12.5, 12.5, 21.875, 21.875]]
    assert result.to_yolo_txt() == "1 0.0625 0.125 0.0625 0.21875 0.109375 0.21875 0.109375 0.125\n"
    assert result.to_coco("a")[0]["segmentation"] == [[12.5, 12.5, 12.5, 21.875, 21.875, 21.875, 21.875, 12.5]]
    assert result.masks.in_image(0).sum() == pytest.approx((4 / 0.32) ** 2, rel=0.2)
    empty = Masks([np.zeros((0, 0), bool)], np.array([[0, 0]]), square_mask().place)
    assert found(masks=empty).to_yolo_txt() == ""


def test_a_mask_of_several_parts_is_one_polygon_of_their_area() -> None:
    patch = np.zeros((30, 40), np.uint8)
    cv2.rectangle(patch, (2, 2), (12, 22), 1, cv2.FILLED)
    cv2.circle(patch, (30, 8), 6, 1, cv2.FILLED)
    cv2.rectangle(patch, (20, 22), (26, 27), 1, cv2.FILLED)
    masks = Masks([patch.astype(bool)], np.array([[4, 20]]), square_mask().place)
    parts, whole = masks.polygons(0), masks.polygon(0)
    assert len(parts) == 3
    assert len(whole) == sum(len(part) for part in parts) + 2 * 2  # of each detour the point that it leaves, and closes
    assert area(whole) == pytest.approx(sum(area(part) for part in parts), rel=1e-5)
    inside = {tuple(point) for part in parts for point in part.tolist()}
    assert {tuple(point) for point in whole.tolist()} == inside
    result = found(masks=masks)
    segments = result.to_dicts()[0]["segments"]
    np.testing.assert_array_equal(np.array([segments["x"], segments["y"]]).T, whole)
    shares = np.array(result.to_yolo_txt().split()[1:], float).reshape(-1, 2)
    np.testing.assert_allclose(shares * [200, 100], whole, atol=0.01)
    assert len(result.to_coco(1)[0]["segmentation"]) == 3


def area(polygon: np.ndarray) -> float:
    """By the shoelace formula, in square pixels; its sign is the direction."""
    x, y = polygon.astype(float).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_keypoints_in_every_form() -> None:
    result = found(keypoints=np.array([[[20, 50, 0.5], [200, 100, 1]]], np.float32))
    assert result.to_dicts()[0]["keypoints"] == {"x": [20, 200], "y": [50, 100], "visible": [0.5, 1]}
    assert result.to_yolo_txt() == "1 0.2 0.2 0.2 0.2 0.1 0.5 0.5 1 1 1\n"
    assert result.to_coco(1)[0]["keypoints"] == [20, 50, 0.5, 200, 100, 1]
    flat = found(keypoints=np.array([[[20, 50]]], np.float32))
    assert flat.to_coco(1)[0]["keypoints"] == [20, 50, 1]


def test_rotated_boxes_in_every_form() -> None:
    # A quarter turn of a 40x20 box around (100, 50): corners 90..110 by 30..70.
    result = found(rotated=np.array([[100, 50, 40, 20, np.pi / 2]], np.float32))
    box = result.to_dicts()[0]["box"]
    assert sorted((round(box[f"x{n}"]), round(box[f"y{n}"])) for n in range(1, 5)) == [
        (90, 30),
        (90, 70),
        (110, 30),
        (110, 70),
    ]
    assert len(result.to_yolo_txt().split()) == 9
    assert len(result.to_coco(1)[0]["segmentation"][0]) == 8


@pytest.mark.parametrize("more", ["masks", "keypoints", "rotated"])
def test_drawing_marks_more_than_the_box(more: str) -> None:
    values = {
        "masks": square_mask(),
        "keypoints": np.array([[[150, 80, 1.0]]], np.float32),
        "rotated": np.array([[150, 80, 20, 10, 0.5]], np.float32),
    }
    image = np.zeros((100, 200, 3), np.uint8)
    plain, drawn = found().draw(image), found(**{more: values[more]}).draw(image)
    assert (plain != drawn).any()
    assert not image.any()
