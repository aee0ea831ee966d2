"""A teacher run by ONNX Runtime: the same maps and predictions as by PyTorch, or PyTorch itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ima_yolo import IMATrainer
from ima_yolo.teachers import graph, load
from ima_yolo.teachers.graph import Graph
from ima_yolo.teachers.load import choose_runtime
from ima_yolo.teachers.yolo import YOLOTeacher


@pytest.fixture
def pair(lively_teacher: Path) -> tuple[YOLOTeacher, YOLOTeacher]:
    """One teacher by PyTorch, and the same by ONNX Runtime."""
    plain, fast = YOLOTeacher(lively_teacher), YOLOTeacher(lively_teacher)
    fast.by_graph()
    return plain, fast


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4))


def test_maps_and_predictions_are_those_of_pytorch(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    for shape, asked in [((2, 3, 64, 96), ()), ((1, 3, 50, 77), (True, False, True)), ((3, 3, 96, 64), (False, True))]:
        own, other = (teacher(images(*shape), *asked) for teacher in pair)
        for first, second in zip(own.features.maps, other.features.maps, strict=True):
            assert first.shape == second.shape
            assert torch.allclose(first, second, atol=1e-3 * float(first.std()))
        if own.predictions is not None and other.predictions is not None:
            assert torch.allclose(own.predictions.scores, other.predictions.scores, atol=1e-3)
            assert torch.allclose(own.predictions.boxes, other.predictions.boxes, atol=1e-2)
        assert [teacher.runtime for teacher in pair] == ["torch", "onnx"]
        for stride, level in (own.confidence or {}).items():
            assert torch.allclose(level, (other.confidence or {})[stride], atol=1e-4)
    assert pair[1]._graphs is not None
    assert all(pair[1]._graphs.values()), "it was the graph that looked"
    assert not any(part.training for part in pair[1]._model.modules()), "frozen as before"
    assert pair[0].digest() == pair[1].digest()


def test_a_graph_repeats_itself_bit_by_bit(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    first, second = (pair[1](images(2, 3, 64, 64)).features.maps for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_graph_with_the_head_serves_without_it(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    _, fast = pair
    fast(images(1, 3, 64, 64), predictions=True)
    fast(images(1, 3, 64, 64))
    assert list(fast._graphs or {}) == [True]


@pytest.mark.parametrize("fault", ["cannot be traced", "other maps"])
def test_where_there_is_no_graph_that_says_the_same_pytorch_goes_on(
    pair: tuple[YOLOTeacher, YOLOTeacher], fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, fast = pair
    if fault == "other maps":
        look = Graph.__call__
        monkeypatch.setattr(Graph, "__call__", lambda self, x: ([1.01 * level for level in look(self, x)[0]], None))
    else:
        monkeypatch.setattr(graph.torch.onnx, "export", lambda *_, **__: 1 / 0)
    own, other = (teacher(images(1, 3, 64, 64)).features.maps for teacher in (plain, fast))
    assert all(torch.equal(first, second) for first, second in zip(own, other, strict=True))
    fast(images(1, 3, 64, 64))
    assert not any(part.training for part in fast._model.modules())
    (line,) = [line for line in caplog.messages if "runs by PyTorch" in line]
    assert ("division by zero" if fault == "cannot be traced" else "its graph shows other maps") in line


def test_a_graph_that_says_other_things_is_refused(
    pair: tuple[YOLOTeacher, YOLOTeacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Graph.__call__

    def other(self: Graph, shown: torch.Tensor) -> Any:
        maps, said = look(self, shown)
        return maps, {**said, "scores": said["scores"] + 1} if said else None

    monkeypatch.setattr(Graph, "__call__", other)
    _, fast = pair
    fast(images(1, 3, 64, 64), predictions=True)
    fast(images(1, 3, 64, 64))
    assert fast._graphs is not None
    assert fast._graphs[True] is None
    assert fast._graphs[False] is not None, "its maps are sound"


def test_half_precision_stays_with_pytorch(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    _, fast = pair
    fast._model.bfloat16()
    assert fast(images(1, 3, 64, 64).bfloat16()).features.maps[0].dtype == torch.bfloat16
    assert fast._graphs == {}


@pytest.mark.parametrize(
    ("choice", "device", "looks", "expected"),
    [
        ("torch", "cpu", 1e9, False),
        ("onnx", "cpu", 1, True),
        ("auto", "cpu", 1999, False),
        ("auto", "cpu", 2000, True),
        ("auto", "cuda", 1e9, False),
        ("onnx", "cuda", 1e9, False),
        ("bf16", "cpu", 1, False),
    ],
)
def test_a_short_training_does_not_pay_for_the_conversion(
    choice: str,
    device: str,
    looks: float,
    expected: bool,
    pair: tuple[YOLOTeacher, YOLOTeacher],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "is_native", lambda: False)
    plain, _ = pair
    choose_runtime([plain], choice, torch.device(device), looks)
    assert (plain._graphs is not None) is expected
    assert ("ima_teacher_runtime=onnx is for Ultralytics models on a CPU" in caplog.text) is (
        (choice, device) == ("onnx", "cuda")
    )


def test_a_training_is_the_same_but_for_rounding(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively_teacher: Path, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"model": str(tiny_checkpoint()), "data": str(tiny_data), "project": str(tmp_path)}
    common |= {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "val": False, "amp": False}
    found = {}
    for runtime in ("torch", "onnx", "bf16"):
        options = {**common, "teacher": lively_teacher, "ima_teacher_runtime": runtime, "name": runtime}
        trainer = IMATrainer(overrides={**options, "ima_gate": False, "optimizer": "SGD"})
        trainer.train()
        teacher = trainer.teachers[0]
        assert isinstance(teacher, YOLOTeacher)
        assert bool(teacher._graphs) is (runtime == "onnx")
        assert (teacher._dtype == torch.bfloat16) is (runtime == "bf16")
        found[runtime] = trainer.tloss
    for name, value in found["torch"].items():
        assert float(found["onnx"][name]) == pytest.approx(float(value), rel=1e-3), name
        # the automatic weight follows the gradient, which may be five percent off
        assert float(found["bf16"][name]) == pytest.approx(float(value), rel=5e-2), name
