"""`quantize=8`: the student imitates int8 while it learns from a teacher, and what comes of it is exported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils.torch_utils import is_qat

from ima_yolo import IMATrainer
from ima_yolo.attach import cannot_compile, is_attached
from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.preflight import check_quantize
from ima_yolo.students import load_student

COMMON = {"epochs": 2, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "device": "cpu", "quantize": 8}
COMMON |= {"optimizer": "AdamW", "nbs": 4, "lr0": 0.002, "warmup_epochs": 1}


class Stop(BaseException):
    """Ends a run, as a signal would."""


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    pytest.importorskip("modelopt", reason="NVIDIA ModelOpt is not installed: pip install '.[int8]'")
    teacher = tiny_checkpoint("yolo26s-few.yaml", seed=1)
    ours = {"teacher": teacher, "ima_gate": False}  # or an untrained teacher, which knows nothing more, rests
    return {**COMMON, **ours, "model": str(tiny_checkpoint()), "data": str(tiny_data), "project": tmp_path}


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    return torch_safe_load(trainer.last, safe_only=True)[0]["model"].state_dict()


def test_a_student_learns_in_int8_and_its_adapters_in_float(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "name": "x"})
    seen: dict[str, Any] = {}

    def look(trainer: IMATrainer) -> None:
        seen["attached"] = is_attached(trainer.model)
        seen["student"] = [name for name, m in trainer.model.named_modules() if type(m).__name__ == "TensorQuantizer"]
        seen["adapters"] = {name: value.clone() for name, value in trainer.distiller.named_parameters()}

    trainer.add_callback("on_train_start", look)
    trainer.train()
    assert seen["attached"]
    assert len(seen["student"]) > 50
    assert not [name for name in seen["student"] if name.startswith("ima.")]
    moved = [not torch.equal(value, seen["adapters"][name]) for name, value in trainer.distiller.named_parameters()]
    assert len(moved) > 3
    assert all(moved)
    checkpoint, _ = torch_safe_load(trainer.best, safe_only=True)
    assert set(checkpoint["modelopt"]) == {"modelopt", "ranges"}
    assert not [name for name in checkpoint["modelopt"]["ranges"] if "ima." in name]
    assert is_qat(YOLO(trainer.best).model)


def test_without_weight_it_is_plain_training_for_int8(options: dict[str, Any]) -> None:
    ours = IMATrainer(overrides={**options, "name": "ours", "ima_weight": 0, "ima_cls": 0, "ima_box": 0})
    ours.train()
    plain = {key: value for key, value in options.items() if key not in ("teacher", "ima_gate")}
    yolo = YOLO(plain.pop("model"))
    yolo.train(**{**plain, "project": str(options["project"]), "name": "plain"})
    expected = weights_of(yolo.trainer)
    for name, value in weights_of(ours).items():
        assert torch.equal(value, expected[name]), name


def test_a_resumed_run_equals_one_that_never_stopped(options: dict[str, Any]) -> None:
    whole = IMATrainer(overrides={**options, "name": "whole"})
    whole.train()
    first = IMATrainer(overrides={**options, "name": "first"})

    def stop(_: Any) -> None:
        raise Stop

    first.add_callback("on_model_save", stop)
    with pytest.raises(Stop):
        first.train()
    resumed = IMATrainer(overrides={"resume": str(first.last)})
    resumed.train()
    expected = weights_of(whole)
    for name, value in weights_of(resumed).items():
        assert torch.equal(value, expected[name]), name


def test_it_loads_without_this_package(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "name": "x", "epochs": 1})
    trainer.train()
    code = "import sys; sys.modules['ima_yolo'] = None\nfrom ultralytics import YOLO\nprint(YOLO(sys.argv[1]).task)"
    done = subprocess.run([sys.executable, "-c", code, trainer.best], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "detect"


def test_it_is_exported_in_float_and_as_int8(options: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    trainer = IMATrainer(overrides={**options, "name": "x", "epochs": 1})
    trainer.train()
    words = [f"model={trainer.best}", "imgsz=64", f"output={tmp_path}"]
    assert main(["export", *words]) == 0
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "best.onnx")).graph.node}
    assert "Conv" in kinds
    assert "QuantizeLinear" not in kinds
    more = ["quantize=8", f"data={options['data']}", "max_loss=1", "calibration_images=2"]
    assert main(["export", *words, *more]) == 0, capsys.readouterr().err
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "best_int8.onnx")).graph.node}
    assert "QuantizeLinear" in kinds
    assert json.loads((tmp_path / "best_int8.json").read_text())["in_float"] == []


def test_what_it_needs_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)  # an import of it raises
    for name in [name for name in sys.modules if name.startswith("modelopt.")]:
        monkeypatch.delitem(sys.modules, name)
    hint = r"pip install '\.\[int8\]' where IMA-YOLO was cloned"
    with pytest.raises(IMAError, match=rf"^quantize=8 needs NVIDIA ModelOpt, .*; {hint}$"):
        check_quantize("cpu")


@pytest.mark.parametrize("device", ["0,1", [0, 1]])
def test_several_devices_are_refused(device: Any) -> None:
    with pytest.raises(IMAError, match=r"^quantize=8 with a teacher takes one device"):
        check_quantize(device)


def test_it_is_not_compiled() -> None:
    student, _ = load_student("yolo26n.yaml")
    assert cannot_compile(student, 1) is None
    assert "quantize=8" in str(cannot_compile(student, 1, imitates_int8=True))
