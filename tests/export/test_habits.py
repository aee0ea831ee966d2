"""Keys of `yolo predict`: taken where they change nothing, else refused with what does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export.habits import HABITS, without_habits

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9]]]).transpose(0, 2, 1)


def test_every_habit_is_a_key_of_ultralytics_and_none_of_ours() -> None:
    from dataclasses import fields

    from ultralytics.utils import DEFAULT_CFG_DICT

    from ima_yolo.export.predict import PredictOptions

    assert set(HABITS) <= {*DEFAULT_CFG_DICT, "stream", "half", "int8"}  # the last two in its older releases
    assert not set(HABITS) & {field.name for field in fields(PredictOptions)}


def test_what_happens_anyway_is_taken() -> None:
    given = {"conf": 0.5, "device": "cpu", "half": False, "show": False, "stream": True, "line_width": None}
    assert without_habits(given) == {"conf": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("device", 0, "^device=0: has no effect on an .onnx file; .* providers="),
        ("half", True, "export with quantize=16$"),
        ("show", True, "save=True"),
        ("nms", False, "when you export with nms="),
    ],
)
def test_what_does_not_is_refused_with_what_does(key: str, value: object, message: str) -> None:
    with pytest.raises(IMAError, match=message):
        without_habits({key: value})


def test_a_command_as_typed_for_yolo(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = toy(RAW)
    cv2.imwrite("a.png", np.zeros((100, 200, 3), np.uint8))
    words = [f"model={model}", "source=a.png", "imgsz=[64]", "device=cpu", "task=detect", "save_txt", "save_conf"]
    assert main(["predict", *words]) == 0
    assert "200x100 1 square" in capsys.readouterr().out
    assert Path("runs/detect/predict/labels/a.txt").read_text() == "1 0.5 0.5 0.5 0.5 0.9\n"
    assert main(["predict", *words, "verbose=False"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"Results saved to {Path('runs/detect/predict-2')}"]
    for more, message in (
        (["task=segment"], "task=segment: "),
        (["imgsz=96"], "leave imgsz= out, or export it again with imgsz=96 or with dynamic=True"),
        (["show"], "show=True: has no effect"),
    ):
        assert main(["predict", f"model={model}", "source=a.png", *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["detect", "predict", *words]) == 2
    assert "type `ima-yolo predict ...`" in capsys.readouterr().err
