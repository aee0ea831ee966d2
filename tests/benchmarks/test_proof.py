"""The studies over pairs, data sets and starts: a tiny one in full, and what is said of several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml


def test_a_study_from_a_converged_student(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from proof import main, set_name

    sizes = ["--imgsz", "64", "--epochs", "1", "--seeds", "0", "--starts", "converged", "--pairs", "yolo26n:yolo26n"]
    keys = [str(tiny_data), "workers=0", "device=cpu", "batch=2", "ima_weight_ratio=0.3", "force=True"]
    before = ["--teacher", "epochs=3", "--holdout", "0.5"]
    monkeypatch.setattr("sys.argv", ["proof.py", str(tmp_path), *keys, *sizes, *before])
    main()
    name = f"{set_name(tiny_data)}-0.5-yolo26n"
    runs = {place: tmp_path / place / "runs" / name / "results.csv" for place in ("teachers", "students")}
    assert [len(file.read_text().splitlines()) - 1 for file in runs.values()] == [3, 2], "as told, and twice as long"
    (study,) = (tmp_path / "studies").iterdir()
    assert study.name == f"{name}-yolo26n-converged"
    made = json.loads((study / "study.json").read_text())
    assert made["common"]["lr0"] == pytest.approx(0.0002)
    assert made["common"]["ima_weight_ratio"] == 0.3
    assert made["made_of"]["student"]["name"] == f"{name}.pt"
    places = json.loads((study / "places.json").read_text())
    assert places["data"] == str(tmp_path / "data" / f"{set_name(tiny_data)}-0.5" / "data.yaml")
    of_teacher = yaml.safe_load((tmp_path / "teachers" / "runs" / name / "args.yaml").read_text())
    assert of_teacher["data"] == places["data"], "held-out images teach nobody"
    assert "one seed: no interval" in (tmp_path / "proof.md").read_text()
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("weights/*.pt")}
    teacher = tmp_path / "teachers" / f"{name}.pt"
    teacher.replace(runs["teachers"].parent / "weights" / "best.pt")  # as where it was stopped after its last epoch
    kept.pop(teacher, None)
    main()  # goes on with what has no result: nothing
    assert teacher.exists()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("weights/*.pt")} == kept
    told = capsys.readouterr().out
    assert "study 1 of 1" in told
    student = tmp_path / "students" / f"{name}.pt"
    assert f"{student} is there and is taken, trained with epochs=2 imgsz=64 batch=2 lr0=0.001 fraction=1.0" in told


def test_what_is_said_of_several_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from proof import summarised

    import ima_yolo.experiment.study as studies

    gains = {"a": (1.0, 2.0, 3.0), "b": (0.0, 1.0, 2.0), "unfinished": ()}

    class Kept:
        def __init__(self, folder: Path) -> None:
            self.gains = gains[folder.name]

        def complete_results(self) -> list[dict[str, Any]]:
            return [
                {"arm": arm, "seed": seed, "map50_95": 0.4 + more / 100}
                for seed, gain in enumerate(self.gains)
                for arm, more in (("none", 0.0), ("builtin", -1.0), ("ima", gain))
            ]

    monkeypatch.setattr(studies, "load_study", Kept)
    for name in gains:
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.json").touch()
    table = summarised(tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[:4] for row in rows] == [
        ["a", "40.0", "39.0", "42.0"],
        ["b", "40.0", "39.0", "41.0"],
        ["mean of 2, interval over seeds"] + 3 * [""],
        ["mean of 2, interval over studies"] + 3 * [""],
    ]
    assert rows[0][4] == "+2.00 [-0.48, +4.48] no evidence of a difference"  # 4.30 standard errors of 1/sqrt(3)
    assert rows[2][5] == "+2.50 [+1.37, +3.63] better"  # 2.78 standard errors of 1/sqrt(6), with 4 degrees of freedom
    assert rows[3][5] == "+2.50 [-3.85, +8.85] no evidence of a difference"  # 12.7 standard errors of 0.5
    found = json.loads((tmp_path / "proof.json").read_text())
    assert found["a"]["gains"] == pytest.approx({"none": 2.0, "builtin": 3.0})
    shutil.rmtree(tmp_path / "studies")
    assert "mean" not in summarised(tmp_path)


def test_keys_that_no_training_would_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from proof import main

    monkeypatch.setattr("sys.argv", ["proof.py", str(tmp_path / "out"), "data.yaml", "--converged", "epochs=3"])
    with pytest.raises(SystemExit):
        main()
    assert "--converged epochs=3: no student has converged without --starts converged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
