"""Pictures of other than three channels: read, painted, compared and refused as Ultralytics' own data of that kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export import Detector, export_onnx
from ima_yolo.export.drawing import as_shown
from ima_yolo.export.kit import self_check, write_kit
from ima_yolo.export.preprocess import InputBuffer, Letterbox, as_input
from ima_yolo.export.samples import in_bands
from ima_yolo.export.session import channels_of
from ima_yolo.export.sources import load_image, read_picture

RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    image = RNG.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    return image[..., 0] if channels == 1 else image


def write(path: Path, image: np.ndarray) -> Path:
    """Write a picture; of a TIFF each channel is a page."""
    if path.suffix == ".tiff" and image.ndim == 3:
        assert cv2.imwritemulti(str(path), [*np.moveaxis(image, 2, 0)])
    else:
        assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """Factory of exported files of untrained models whose outputs vary: `graph(5)`."""
    folder = tmp_path_factory.mktemp("channels")

    def make(channels: int, **args: object) -> Path:
        from lively import enliven
        from ultralytics import YOLO

        target = folder / f"{channels}-{'-'.join(args)}.onnx"
        if not target.exists():
            yolo = YOLO(tiny_checkpoint(channels=channels))
            enliven(yolo.model, np.random.default_rng(0).random((8, channels, 96, 96), np.float32), bias=0.0)
            checkpoint = folder / f"{channels}.pt"
            yolo.save(checkpoint)
            export_onnx(checkpoint, target, imgsz=96, **args)
        return target

    return make


@pytest.mark.parametrize(
    ("name", "given", "dtype", "channels"),
    [
        ("grey.png", 1, np.uint8, 1),
        ("grey.png", 1, np.uint16, 1),
        ("grey.tiff", 1, np.uint16, 1),
        ("colour.png", 3, np.uint8, 1),
        ("colour.jpg", 3, np.uint8, 1),
        ("pages.tiff", 5, np.uint8, 1),
        ("pages.tiff", 5, np.uint8, 3),
        ("pages.tiff", 2, np.uint8, 2),
        ("alpha.png", 4, np.uint8, 4),
        ("pages.tiff", 4, np.uint8, 4),
        ("pages.tiff", 5, np.uint8, 5),
        ("pages.tiff", 5, np.uint16, 5),
        ("pages.tiff", 12, np.uint8, 12),
    ],
)
def test_a_file_becomes_what_ultralytics_makes_of_it(
    name: str, given: int, dtype: type, channels: int, tmp_path: Path
) -> None:
    import torch
    from ultralytics.data.augment import LetterBox
    from ultralytics.data.loaders import LoadImagesAndVideos
    from ultralytics.engine.predictor import BasePredictor

    path = write(tmp_path / name, noise(37, 91, given, dtype))
    theirs = next(iter(LoadImagesAndVideos(str(path), channels=channels)))[1][0]
    ours = load_image(path, channels)
    np.testing.assert_array_equal(ours, theirs)
    assert (ours.shape, ours.dtype) == ((37, 91, channels), np.uint8)
    predictor = BasePredictor.__new__(BasePredictor)
    predictor.pre_transform = lambda images: [LetterBox((64, 96), auto=False)(image=image) for image in images]
    predictor.device, predictor.model = torch.device("cpu"), type("Model", (), {"fp16": False})
    place = Letterbox.fit((37, 91), (64, 96))
    np.testing.assert_array_equal(place.blob(ours), predictor.preprocess([theirs]).numpy())
    np.testing.assert_array_equal(InputBuffer(channels).fill([ours], [place], 1), place.blob(ours))


def test_more_channels_than_opencv_takes_at_once_are_resized_one_by_one() -> None:
    image, place = noise(40, 30, 130), Letterbox.fit((40, 30), (64, 64))
    parts = [place.blob(image[..., start : start + 65])[0] for start in (0, 65)]
    np.testing.assert_array_equal(place.blob(image)[0], np.concatenate(parts))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("args", [{}, {"nms": True}, {"dynamic": True}], ids=["raw", "nms-embedded", "dynamic"])
def test_the_runtime_finds_what_ultralytics_finds(
    channels: int, args: dict[str, object], graph: Callable[..., Path], channel_data: Callable[[int], Path]
) -> None:
    from ultralytics import YOLO

    path, found = graph(channels, **args), 0
    detector, yolo = Detector(path), YOLO(path, task="detect")
    for file in sorted((channel_data(channels).parent / "images" / "val").iterdir())[:2]:
        ours = detector(load_image(file, channels), conf=0.3)
        theirs = yolo.predict(file, imgsz=96, conf=0.3, verbose=False)[0].boxes
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours.boxes, theirs.xyxy.numpy(), rtol=0, atol=2e-3)
        np.testing.assert_allclose(ours.scores, theirs.conf.numpy(), rtol=0, atol=1e-5)
        found += len(ours)
    assert found > 3


def test_colour_and_alpha_become_grey_for_a_grey_model(graph: Callable[..., Path]) -> None:
    from ultralytics.data.loaders import LoadPilAndNumpy

    detector, image = Detector(graph(1)), cv2.resize(noise(12, 10, 3), (100, 120))
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    expected = detector(grey, conf=0.05)
    assert len(expected)
    for array in (image, cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), grey[..., None], grey.astype(np.uint16) << 8):
        np.testing.assert_array_equal(detector(array, conf=0.05).boxes, expected.boxes)
        np.testing.assert_array_equal(as_input(array, 1), LoadPilAndNumpy._single_check(array, 1))


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 1), (9, 9, 3), (9, 9, 6), (0, 9, 5), (1, 9, 9, 5)])
def test_an_array_of_other_channels_is_refused(shape: tuple[int, ...], graph: Callable[..., Path]) -> None:
    with pytest.raises(IMAError, match=r"^image has shape .*, expected \(H, W, 5\) with pixels$"):
        Detector(graph(5))(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_bands_are_refused_by_a_model_of_grey_or_colour(channels: int, graph: Callable[..., Path]) -> None:
    with pytest.raises(IMAError, match=r"^image has shape \(9, 9, 5\), expected \(H, W\), "):
        Detector(graph(channels))(np.zeros((9, 9, 5), np.uint8))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (np.zeros((9, 9), np.uint8), "has 1 channels, the model takes 5"),
        (np.zeros((9, 9, 6), np.uint8), "has 6 channels, the model takes 5"),
        (np.zeros((9, 9, 5), np.float32), "holds values of type float32, expected 8 or 16 bits without sign"),
        (None, "is damaged, or no picture that OpenCV reads"),
    ],
)
def test_a_file_of_other_channels_is_left_out_with_its_reason(
    content: np.ndarray | None, fault: str, tmp_path: Path
) -> None:
    if content is None:
        (tmp_path / "x.tiff").write_bytes(b"II*\0 and no picture")
    else:
        write(tmp_path / "x.tiff", content)
    frame = read_picture(tmp_path / "x.tiff", 5)
    assert (frame.image, frame.fault) == (None, fault)


def test_predict_reads_bands_draws_three_and_leaves_out_what_has_others(
    graph: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    good = write(folder / "a.tiff", cv2.resize(noise(8, 10, 5), (100, 80)))
    write(folder / "b.png", noise(80, 100, 3))
    (folder / "c.mp4").write_bytes(b"")
    assert main(["predict", f"model={graph(5)}", f"source={folder}", "conf=0.05", "project=out", "name=x"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"image 1 {good}: 100x80 ")
    assert lines[1].endswith("b.png: cannot be read, left out (has 3 channels, the model takes 5)")
    assert lines[2].endswith("c.mp4: cannot be read, left out (its frames have 3 channels, the model takes 5)")
    (drawn,) = Path("out/x").iterdir()
    assert cv2.imread(str(drawn)).shape == (80, 100, 3)


def test_drawings_show_the_first_three_channels() -> None:
    image = noise(4, 6, 5)
    np.testing.assert_array_equal(as_shown(image), image[..., :3])
    np.testing.assert_array_equal(as_shown(image[..., :2])[..., :2], image[..., :2])
    assert not as_shown(image[..., :2])[..., 2].any()
    np.testing.assert_array_equal(as_shown(image[..., 0]), image[..., [0, 0, 0]])
    np.testing.assert_array_equal(as_shown(image[..., :4]), image[..., :3])
    with pytest.raises(IMAError, match=r"^image "):
        as_shown(image[0, 0])


def test_a_photo_is_spread_evenly_over_the_bands() -> None:
    photo = np.array([[[0, 100, 200]]], np.uint8)
    assert in_bands(photo, 5)[0, 0].tolist() == [0, 50, 100, 150, 200]
    assert in_bands(photo, 2)[0, 0].tolist() == [0, 200]
    assert in_bands(photo, 4)[0, 0].tolist() == [0, 67, 133, 200]


def test_an_export_is_compared_on_pictures_of_its_channels_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    picture = write(tmp_path / "x.png", noise(50, 70, 3))
    with pytest.raises(IMAError, match=r"x\.png: cannot be read as a picture \(has 3 channels, the model takes 5\)$"):
        export_onnx(tiny_checkpoint(channels=5), tmp_path / "x.onnx", [picture], imgsz=64)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("channels", [1, 5])
def test_a_kit_comes_with_a_sample_that_its_model_takes(
    channels: int, graph: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    model = tmp_path / "best.onnx"
    model.write_bytes(graph(channels).read_bytes())
    kit = write_kit(model)
    assert self_check(kit) == 0
    monkeypatch.chdir(kit)
    text = (kit / "README.md").read_text()
    assert ("clip.mp4" in text) is (channels == 1)
    capsys.readouterr()
    exec(text.split("```python\n")[1].split("```")[0], {})
    found = capsys.readouterr().out.strip()
    assert f"({found} in `sample" in text


def test_a_benchmark_draws_pictures_that_the_model_takes(
    graph: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima_yolo.export import benchmark
    from ima_yolo.export.bench_worker import read_images

    seen: list[np.ndarray] = []

    def run(model: Path, against: Path, images: list[Path], *rest: object) -> None:
        detector = Detector(model)
        seen.extend(read_images({**benchmark._setup(model, detector), "images": images[:2]}))
        detector.prepare(seen[:1])
        raise IMAError("enough")

    monkeypatch.setattr(benchmark, "run_benchmark", run)
    assert main(["benchmark", f"model={graph(5)}"]) == 2
    assert [image.shape[2] for image in seen] == [5, 5]
    assert channels_of(graph(5)) == 5


def test_int8_is_calibrated_on_bands_and_not_on_other_data(
    graph: Callable[..., Path], channel_data: Callable[[int], Path], tmp_path: Path
) -> None:
    from ima_yolo.export.quantize import QuantizeOptions, quantize_onnx

    with pytest.raises(IMAError, match=r"^data=.*: has 1 channels, the model takes 5$"):
        quantize_onnx(graph(5), tmp_path / "x.onnx", QuantizeOptions(str(channel_data(1))))
    options = QuantizeOptions(str(channel_data(5)), calibration="minmax", calibration_images=2, max_loss=1)
    report = quantize_onnx(graph(5), tmp_path / "x.onnx", options)
    assert channels_of(report.path) == 5
