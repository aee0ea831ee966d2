"""The demo's shape, on a budget of seconds; its own budget is measured by running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ima_yolo.demo import run as demo


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TRAIN_IMAGES": 16, "VAL_IMAGES": 4, "IMGSZ": 64}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "TEACHER_EPOCHS", 1)
    monkeypatch.setattr(demo, "STUDENT_EPOCHS", 1)


@pytest.mark.usefixtures("small")
def test_the_demo_trains_exports_runs_and_shows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(demo.LOGGER, "info", lambda text, *_: said.append(str(text)))
    models = demo.run(tmp_path / "demo", seed=3)
    shown = "\n".join([capfd.readouterr().out, *said])
    assert list(models) == ["teacher", "plain", "distilled", "distilled, ONNX"]
    assert all(path.stat().st_size > 0 for path in models.values())
    assert (tmp_path / "demo" / "side_by_side.png").stat().st_size > 10_000
    assert "image 4/4" in shown, "the ONNX file was run over the validation images"
    for name in models:
        assert f"\n{name} " in shown, "the table has a row for each"
    assert "epochs completed" in (tmp_path / "demo" / "plain.log").read_text(), "the plain student trained on its own"


def test_the_students_share_everything_but_the_teacher(tmp_path: Path) -> None:
    stage = demo.Stage(tmp_path, tmp_path / "data.yaml", seed=5, device=None)
    plain, distilled = stage.training("plain", 4), stage.training("distilled", 4)
    assert {key for key in plain if plain[key] != distilled[key]} == {"name"}
    assert plain["seed"] == 5
