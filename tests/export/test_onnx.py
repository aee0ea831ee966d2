"""The export: parity of every kind of graph, and nothing in place where anything went wrong."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from ultralytics import YOLO

from ima_yolo.errors import IMAError
from ima_yolo.export import ExportReport, export_onnx
from ima_yolo.export import onnx as exporter
from ima_yolo.export.embedded_nms import threshold_for, with_threshold
from ima_yolo.export.preprocess import Letterbox
from ima_yolo.export.settings import check_export_args

IMGSZ = 96


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def blobs(photos: list[Path]) -> list[np.ndarray]:
    images = [cv2.imread(str(path)) for path in photos]
    return [Letterbox.fit(image.shape[:2], (IMGSZ, IMGSZ)).blob(image) for image in images]


def perturb(path: Path, by: float) -> None:
    """Shift the last convolution's bias of a class branch, or of a box branch, by a little."""
    model = onnx.load(str(path))
    biases = [t for t in model.graph.initializer if t.name.endswith("cv3.0.2.bias") or "cv3.0.2.bias" in t.name]
    assert len(biases) == 1, [t.name for t in model.graph.initializer]
    values = numpy_helper.to_array(biases[0])
    biases[0].CopyFrom(numpy_helper.from_array((values + by).astype(values.dtype), biases[0].name))
    onnx.save(model, str(path))


@pytest.fixture
def reuse(graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let `export_onnx` take a finished graph for the exporter's, changed by `change(path)` on its way."""

    def use(kind: str, change: Callable[[Path], None] = lambda path: None) -> None:
        def write(source: Path, folder: Path, args: dict[str, object]) -> tuple[torch.nn.Module, Path]:
            copy, graph = folder / source.name, folder / "graph.onnx"
            shutil.copyfile(source, copy)
            shutil.copyfile(graphs[kind], graph)
            change(graph)
            return YOLO(copy).model, graph

        monkeypatch.setattr(exporter, "_write_graph", write)

    return use


def test_raw_graph_equals_the_torch_model(graphs: dict[str, Path], checkpoint: Path, photos: list[Path]) -> None:
    model = YOLO(checkpoint).model.eval()
    model.end2end = False
    session = ort.InferenceSession(graphs["raw"])
    for blob in blobs(photos):
        with torch.no_grad():
            expected = model(torch.from_numpy(blob))[0].numpy()
        assert expected.shape == (1, 7, 189)  # 12² + 6² + 3² anchors of 96 px
        assert np.ptp(expected[0, 4:]) > 0.3  # else the comparison would mean nothing
        actual = session.run(None, {"images": blob})[0]
        np.testing.assert_allclose(actual[:, :4], expected[:, :4], rtol=0, atol=0.05)  # pixels
        np.testing.assert_allclose(actual[:, 4:], expected[:, 4:], rtol=0, atol=1e-3)


def test_nms_free_graph_equals_the_torch_model(graphs: dict[str, Path], checkpoint: Path, photos: list[Path]) -> None:
    model = YOLO(checkpoint).model.eval()
    model.end2end = True
    session = ort.InferenceSession(graphs["nms-free"])
    for blob in blobs(photos):
        with torch.no_grad():
            expected = model(torch.from_numpy(blob))[0].numpy()[0]
        actual = session.run(None, {"images": blob})[0][0]
        strong = expected[expected[:, 4] > 0.3]
        assert len(strong) > 5
        # To the nearest row, since rows of near-equal scores may swap.
        gaps = np.abs(strong[:, None] - actual).max(axis=2).min(axis=1)
        np.testing.assert_allclose(gaps, 0, atol=0.05)


@pytest.mark.parametrize("kind", ["raw", "nms-free", "nms-embedded"])
def test_report(kind: str, reuse: Callable[..., None], checkpoint: Path, tmp_path: Path) -> None:
    reuse(kind)
    before = digest(checkpoint)
    report = export_onnx(checkpoint, tmp_path / "x.onnx")
    assert isinstance(report, ExportReport)
    assert (report.path, report.imgsz, report.kind.value) == (tmp_path / "x.onnx", (IMGSZ, IMGSZ), kind)
    assert (report.size, report.images) == (report.path.stat().st_size, 2)
    assert 0 < report.max_score_difference < 1e-3
    assert 0 < report.max_box_difference < 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"]
    assert (digest(checkpoint), [p.name for p in checkpoint.parent.iterdir()]) == (before, ["lively.pt"])


@pytest.mark.parametrize("kind", ["raw", "nms-free", "nms-embedded"])
def test_a_failed_parity_names_the_figures_and_spares_the_old_file(
    kind: str, reuse: Callable[..., None], checkpoint: Path, tmp_path: Path
) -> None:
    reuse(kind, lambda path: perturb(path, 0.02))
    target = tmp_path / "x.onnx"
    with pytest.raises(IMAError, match=r"lively\.pt: .*differs from torch by boxes .* px, scores 0\.00"):
        export_onnx(checkpoint, target)
    assert list(tmp_path.iterdir()) == []
    target.write_text("an earlier export")
    with pytest.raises(IMAError, match=r"allowed are boxes 0\.05 px, scores 0\.001"):
        export_onnx(checkpoint, target)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x.onnx", "an earlier export")]


def break_checker(path: Path) -> None:
    model = onnx.load(str(path))
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, str(path))


def drop_metadata(path: Path) -> None:
    model = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != "end2end"}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("change", "message"), [(break_checker, "not valid ONNX"), (drop_metadata, r"lacks metadata \(end2end\)")]
)
def test_a_bad_graph_is_not_put_in_place(
    change: Callable[[Path], None], message: str, reuse: Callable[..., None], checkpoint: Path, tmp_path: Path
) -> None:
    reuse("raw", change)
    with pytest.raises(IMAError, match=message):
        export_onnx(checkpoint, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_finds_nothing_is_compared_below_its_threshold(
    graphs: dict[str, Path], reuse: Callable[..., None], checkpoint: Path, tmp_path: Path
) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((96, 96, 3), 114, np.uint8))

    def silence(path: Path, by: float = 0.0) -> None:
        path.write_bytes(with_threshold(path, 0.25, 0.999))
        if by:
            perturb(path, by)

    reuse("nms-embedded", silence)
    report = export_onnx(checkpoint, tmp_path / "x.onnx", [grey], conf=0.999)
    session = ort.InferenceSession(report.path)
    image = Letterbox.fit((96, 96), (96, 96)).blob(cv2.imread(str(grey)))
    assert not session.run(None, {"images": image})[0].any()  # silent as shipped, and yet compared:
    assert report.max_score_difference > 0
    reuse("nms-embedded", lambda path: silence(path, 0.02))
    with pytest.raises(IMAError, match="differs from torch"):
        export_onnx(checkpoint, tmp_path / "y.onnx", [grey], conf=0.999)


def test_threshold_lies_between_two_scores() -> None:
    rows = np.zeros((30, 6), np.float32)
    rows[:25, 4] = np.linspace(0.9, 0.42, 25)  # steps of 0.02: the 20th is 0.52, the 21st 0.50
    assert threshold_for(rows) == pytest.approx(0.51)
    assert threshold_for(rows[25:]) == 0.0


def test_a_threshold_that_is_not_there_is_an_error(graphs: dict[str, Path]) -> None:
    with pytest.raises(IMAError, match="images="):
        with_threshold(graphs["raw"], 0.25, 0.1)


def test_half_precision_and_a_graph_of_two_pictures(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    report = export_onnx(tiny_checkpoint("yolo26n.yaml"), tmp_path / "half.onnx", imgsz=IMGSZ, half=True, batch=2)
    stored = onnx.load(str(report.path)).graph.initializer
    assert sum(t.data_type == onnx.TensorProto.FLOAT16 for t in stored) > 100
    assert ort.InferenceSession(report.path).get_inputs()[0].shape == [2, 3, IMGSZ, IMGSZ]


@pytest.mark.parametrize("config", ["yolo26n-seg.yaml", "yolo26n-sem.yaml"])
def test_other_tasks(config: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    report = export_onnx(tiny_checkpoint(config), tmp_path / "x.onnx", imgsz=64)
    assert report.max_other_difference < 1e-3


class Trap:
    """Leaves a file behind if its pickle is run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_a_checkpoint_with_foreign_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "trapped")}, tmp_path / "evil.pt")
    with pytest.raises(IMAError, match=r"evil\.pt"):
        export_onnx(tmp_path / "evil.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pt"]
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "trapped").exists()  # the trap works


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"model": 1})])
def test_a_corrupt_checkpoint_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(IMAError, match=r"^model=.*x\.pt: ") as caught:
        export_onnx(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_a_truncated_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(IMAError, match=r"^model=.*x\.pt: "):
        export_onnx(tmp_path / "x.pt")


def test_a_missing_checkpoint_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(IMAError, match=r"^model=mine\.pt: file not found$"):
        export_onnx("mine.pt")


def test_a_classifier_is_refused(tiny_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(IMAError, match="classification"):
        export_onnx(tiny_checkpoint("yolo26n-cls.yaml"))


def test_a_value_that_ultralytics_refuses_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(IMAError, match=r"^model=.*could not export it \(.*simplify") as caught:
        export_onnx(checkpoint, tmp_path / "x.onnx", simplify="often")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_argument_reaches_ultralytics(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def export(self: YOLO, **args: object) -> str:
        seen.update(args)
        raise RuntimeError("far enough")

    monkeypatch.setattr(YOLO, "export", export)
    asked = {"imgsz": 64, "nms": True, "conf": 0.1, "iou": 0.5, "max_det": 20, "opset": 17, "dynamic": False}
    with pytest.raises(IMAError, match="far enough"):
        export_onnx(checkpoint, tmp_path / "x.onnx", **asked)
    assert seen == {"format": "onnx", **check_export_args(asked)}


def test_an_unwritable_folder(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(exporter.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(IMAError, match=r"x\.onnx: its folder cannot be written to \(Permission denied\)"):
        export_onnx(checkpoint, tmp_path / "x.onnx")
