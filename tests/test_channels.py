"""Data of other than three channels from the training to the file for the device, with every picture on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ima_yolo.cli import main
from ima_yolo.data_set import read_image
from ima_yolo.errors import IMAError
from ima_yolo.experiment.report.analysis import detections
from ima_yolo.experiment.report.examples import feature_figure
from ima_yolo.pictures import as_rgb, prediction_column
from ima_yolo.pictures.tile import open_image

STUDENT = Path(__file__).parent / "models" / "yolo26n-few.yaml"


@pytest.fixture
def bands(tmp_path: Path) -> Path:
    """A picture of five bands, each of one value: 10, 20, 30, 40 and 50."""
    path = tmp_path / "bands.tiff"
    assert cv2.imwritemulti(str(path), [np.full((40, 60), 10 * number, np.uint8) for number in range(1, 6)])
    return path


@pytest.mark.parametrize("channels", [1, 5])
def test_a_training_ends_with_its_picture_and_the_student_reaches_the_device(
    channels: int,
    channel_data: Callable[[int], Path],
    lively_teacher: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = channel_data(channels)
    words = [f"teacher={lively_teacher}", f"student={STUDENT}", f"data={data}", f"project={tmp_path}"]
    caplog.set_level("INFO")
    assert main(["train", *words, "epochs=1", "imgsz=64", "batch=4", "workers=0", "plots=False"]) == 0
    assert f"takes 3 channels, the data has {channels}, so its accuracy was not measured" in caplog.text
    assert (tmp_path / "train" / "side_by_side.png").exists()
    best = tmp_path / "train" / "weights" / "best.pt"
    assert main(["export", f"model={best}", "format=onnx", "imgsz=64"]) == 0
    assert "Largest differences to torch on 2 pictures: boxes" in caplog.text
    images = data.parent / "images" / "val"
    assert main(["predict", f"model={best.with_suffix('.onnx')}", f"source={images}", "conf=0.0001"]) == 0
    assert capsys.readouterr().out.count(": 96x96 ") == 4


@pytest.mark.parametrize("channels", [1, 5])
def test_predictions_are_made_from_all_channels(
    channels: int,
    channel_data: Callable[[int], Path],
    tiny_checkpoint: Callable[..., Path],
    lively: Callable[[Path, Path], Path],
    tmp_path: Path,
) -> None:
    from ultralytics import YOLO

    images = sorted((channel_data(channels).parent / "images" / "val").iterdir())
    checkpoint = lively(tiny_checkpoint(channels=channels), tmp_path / "lively.pt")
    found = prediction_column("Student", checkpoint, images, imgsz=96, conf=1e-5, channels=channels)
    told = detections(checkpoint, images, found.names, 96, "cpu", channels)
    for path, boxes, scores, objects in zip(images, found.boxes, found.scores or [], told, strict=True):
        expected = YOLO(checkpoint).predict(path, imgsz=96, conf=1e-5, device="cpu", verbose=False)[0].boxes
        assert len(expected) > 0
        np.testing.assert_allclose(boxes, expected.xyxy.numpy(), atol=1e-3)
        np.testing.assert_allclose(scores, expected.conf.numpy(), atol=1e-6)
        sure = expected.conf.numpy() >= 0.001
        np.testing.assert_allclose(objects.scores, expected.conf.numpy()[sure], atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "wanted", "named", "seen"),
    [
        (5, 3, None, [10, 20, 30]),  # the first three, as red, green and blue
        (5, 3, (4, 0, 2), [50, 10, 30]),
        (5, 1, (3,), [40]),
        (5, 5, None, [10, 20, 30, 40, 50]),
        (1, 3, None, [10, 10, 10]),  # of a TIFF, the first page is grey
    ],
)
def test_a_teacher_is_shown_in_pictures_what_it_was_shown_in_training(
    channels: int,
    wanted: int,
    named: tuple[int, ...] | None,
    seen: list[int],
    bands: Path,
    tiny_checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from ima_yolo.teachers.view import in_channels

    given: list[torch.Tensor] = []
    plain = DetectionModel.forward

    def forward(self: DetectionModel, images: torch.Tensor, *args: object, **keys: object) -> object:
        given.append(images)
        return plain(self, images, *args, **keys)

    monkeypatch.setattr(DetectionModel, "forward", forward)
    checkpoint = tiny_checkpoint(channels=wanted)
    prediction_column("Teacher", checkpoint, [bands], imgsz=64, channels=channels, bands=named)
    middle = given[-1][0, :, 32, 32] * 255
    assert middle.round().int().tolist() == seen
    trained_on = torch.arange(1, channels + 1).view(1, -1, 1, 1) * 10
    assert in_channels(trained_on, wanted, named).flatten().tolist() == seen


def test_colours_are_counted_from_red_for_a_teacher(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    from ultralytics import YOLO

    from ima_yolo.pictures import model_input

    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.full((4, 6, 3), (30, 20, 10), np.uint8))  # blue, green, red
    grey = YOLO(tiny_checkpoint(channels=1))
    assert [image[0, 0].tolist() for image in model_input(grey, [path], 3, (0,))] == [[10]]
    assert model_input(YOLO(tiny_checkpoint()), [path], 3) == [str(path)]


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    (tmp_path / "x.tiff").write_bytes(b"no picture")
    with pytest.raises(IMAError, match=r"x\.tiff: expected an image that can be read"):
        prediction_column("Student", tiny_checkpoint(channels=5), [tmp_path / "x.tiff"], imgsz=64, channels=5)
    with pytest.raises(IMAError, match=r"x\.tiff: expected an image that can be read"):
        open_image(tmp_path / "x.tiff")


def test_tiles_show_bands_grey_and_16_bits(bands: Path, tmp_path: Path) -> None:
    assert np.asarray(open_image(bands))[0, 0].tolist() == [30, 20, 10]  # as blue, green and red
    for name in ("deep.png", "deep.tiff"):
        cv2.imwrite(str(tmp_path / name), np.full((4, 6), 40 << 8, np.uint16))
        assert np.asarray(open_image(tmp_path / name))[0, 0].tolist() == [40, 40, 40]
    Image.new("L", (6, 4), 77).save(tmp_path / "grey.png")
    assert np.asarray(open_image(tmp_path / "grey.png"))[0, 0].tolist() == [77, 77, 77]
    image = read_image(bands, 5)
    assert image is not None
    assert as_rgb(image[..., :2])[0, 0].tolist() == [0, 20, 10]


@pytest.mark.parametrize("channels", [1, 5])
def test_the_feature_picture_of_a_report_is_drawn(
    channels: int, channel_data: Callable[[int], Path], tiny_checkpoint: Callable[..., Path]
) -> None:
    models = {"teacher": tiny_checkpoint("yolo26s-few.yaml", seed=1), "ima": tiny_checkpoint(channels=channels)}
    image = next((channel_data(channels).parent / "images" / "val").iterdir())
    named = {"teacher": (4, 3, 2)} if channels == 5 else None
    assert feature_figure(models, image, 64, ("none", 0.5), channels, named).content
