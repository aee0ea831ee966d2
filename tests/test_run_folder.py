"""A run's folder that somebody sent: what goes on there writes into it alone, and waits for nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ima_yolo import IMATrainer, cli
from ima_yolo.errors import IMAError
from ima_yolo.export import export_onnx
from ima_yolo.plain_files import check_tree
from ima_yolo.run_folder import check_run

pytestmark = pytest.mark.usefixtures("not_waited_for")


def link(path: Path) -> None:
    """Put a link to a file of the user's in its place."""
    path.unlink(missing_ok=True)
    path.symlink_to(path.parents[2] / "mine.txt" if path.parent.name == "weights" else path.parents[1] / "mine.txt")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def made(path: Path) -> Path:
    """The path, in a folder that is there."""
    path.parent.mkdir(parents=True)
    return path


OUT = "a link out of its folder"
PIPE = "expected a file: pipes and devices are not read"
FOLDER = "expected a folder; remove it"
BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "arguments elsewhere": ("args.yaml", link, OUT),
    "settings elsewhere": ("ima.yaml", link, OUT),
    "results elsewhere": ("results.csv", link, OUT),
    "best elsewhere": ("weights/best.pt", link, OUT),
    "a plot elsewhere": ("results.png", link, OUT),
    "a link to itself": ("results.png", lambda path: path.symlink_to(path), OUT),
    "arguments from a pipe": ("args.yaml", pipe, PIPE),
    "settings from a pipe": ("ima.yaml", pipe, PIPE),
    "results from a pipe": ("results.csv", pipe, PIPE),
    "staging is a file": ("weights/.saving", Path.touch, FOLDER),
    "staging is a link": ("weights/.saving", lambda path: path.symlink_to(path.parents[2]), FOLDER),
    "the end's staging is a file": ("weights/.finishing", Path.touch, FOLDER),
    "the end's staging is a link": ("weights/.finishing", lambda path: path.symlink_to(path.parents[2]), FOLDER),
    "a folder for a picture": ("side_by_side.png", Path.mkdir, "expected a file; remove it"),
    "labels elsewhere": ("labels", lambda path: path.symlink_to(path.parents[1]), FOLDER),
    "pictures elsewhere": ("visualizations", lambda path: path.symlink_to(path.parents[1]), OUT),
    "a picture elsewhere": ("visualizations/0.jpg", lambda path: made(path).symlink_to("/nowhere/0.jpg"), OUT),
    "deep down": ("crops/cell/0.jpg", lambda path: made(path).symlink_to(path.parents[3] / "mine.txt"), OUT),
    "a hidden one": (".kept/0.jpg", lambda path: os.mkfifo(made(path)), PIPE),
}


def test_what_would_be_written_elsewhere_is_refused_before_any_work(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Stopped(BaseException):
        """Ends a training."""

    def stop(_: Any) -> None:
        raise Stopped

    place = {"project": str(tmp_path), "name": "run", "data": str(tiny_data), "imgsz": 64, "device": "cpu"}
    models = {"teacher": str(tiny_checkpoint(seed=1)), "student": str(tiny_checkpoint())}
    trainer = IMATrainer(overrides={**place, **models, "epochs": 2, "batch": 4, "plots": False, "workers": 0})
    trainer.add_callback("on_model_save", stop)
    with pytest.raises(Stopped):
        trainer.train()
    (tmp_path / "mine.txt").write_text("mine")
    for case, (name, change, message) in BAD.items():
        run = tmp_path / "sent"
        shutil.copytree(tmp_path / "run", run)
        change(run / name)
        before = {path: path.lstat().st_mtime_ns for path in run.rglob("*")}
        capfd.readouterr()
        assert cli.main(["train", f"resume={run / 'weights' / 'last.pt'}", "device=cpu"]) == 2, case
        said = capfd.readouterr().err.splitlines()[-1]
        assert said.startswith(f"ima-yolo: {run / name}: {message}"), case
        assert {path: path.lstat().st_mtime_ns for path in run.rglob("*")} == before, case
        shutil.rmtree(run)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("form", ["pt", "onnx"])
def test_a_folder_that_is_there_is_looked_through_before_it_is_predicted_into(
    form: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_checkpoint()
    if form == "onnx":
        model = export_onnx(model, output=tmp_path / "tiny.onnx", imgsz=64).path
    cv2.imwrite(str(tmp_path / "0.jpg"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "mine").touch()
    words = [f"model={model}", f"source={tmp_path / '0.jpg'}", "save_txt=True", "conf=0.001", "imgsz=64"]
    for number, place in enumerate(("0.jpg", "labels", "predictions.json", "crops/x/0.jpg")):
        for kind, message in ((lambda path: path.symlink_to(tmp_path / "mine"), OUT), (os.mkfifo, PIPE)):
            path = tmp_path / f"sent{number}" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            kind(path)
            name = f"name=sent{number}"
            assert cli.main(["predict", *words, f"project={tmp_path}", name, "exist_ok=True"]) == 2
            expected = FOLDER if (place, form) == ("labels", "pt") else message
            assert capsys.readouterr().err.splitlines()[-1].startswith(f"ima-yolo: {path}: {expected}")
    assert (tmp_path / "mine").read_bytes() == b""


def test_links_inside_the_folder_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    (run / "weights" / "epoch1.pt").touch()
    (run / "weights" / "best.pt").symlink_to("epoch1.pt")
    (run / "latest").symlink_to("weights")
    (run / "weights" / "here").symlink_to("..")
    log = made(run / "wandb" / "run-1" / "logs" / "debug-core.log")  # as Weights & Biases leaves it
    log.symlink_to(tmp_path / "cache" / "core-debug.log")
    (tmp_path / "elsewhere").symlink_to("run")
    check_run(run)
    check_run(tmp_path / "elsewhere")
    check_run(tmp_path / "gone")
    shutil.move(run / "weights", tmp_path / "others")
    (run / "weights").symlink_to(tmp_path / "others")
    with pytest.raises(IMAError, match="weights: expected a folder"):
        check_run(run)


STUDY: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a log elsewhere": ("logs/ima-seed0.log", lambda path: path.symlink_to("/nowhere/mine.txt"), OUT),
    "a training elsewhere": ("runs/ima-seed0", lambda path: path.symlink_to(path.parents[2]), OUT),
    "its weights elsewhere": ("runs/none-seed0/weights/best.pt", lambda path: path.symlink_to("/nowhere/b.pt"), OUT),
    "all results elsewhere": ("results", lambda path: path.symlink_to(path.parents[1]), OUT),
    "what it is, from a pipe": ("study.json", pipe, PIPE),
    "a log to a pipe": ("logs/ima-seed0.log", pipe, PIPE),
    "arguments from a pipe": ("runs/ima-seed0/args.yaml", pipe, PIPE),
}


@pytest.mark.parametrize("case", STUDY)
@pytest.mark.parametrize("command", ["compare", "ablate", "sweep", "report"])
def test_a_study_that_was_sent_is_looked_through_first(
    command: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change, message = STUDY[case]
    folder = tmp_path / "sent"
    (folder / name).parent.mkdir(parents=True)
    change(folder / name)
    words = {"sweep": ["space={'ima_weight': [1, 2]}"], "report": [f"study={folder}"]}.get(command, [])
    words += [] if command == "report" else ["teacher=gone.pt", f"project={tmp_path}", "name=sent"]
    assert cli.main([command, *words]) == 2
    assert capsys.readouterr().err.startswith(f"ima-yolo: {folder.resolve() / name}: {message}")


def test_a_study_of_one_s_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "study" / "runs").mkdir(parents=True)
    (tmp_path / "study" / "runs" / "best.pt").touch()
    (tmp_path / "study" / "shown.pt").symlink_to("runs/best.pt")
    (tmp_path / "elsewhere").symlink_to("study")
    (tmp_path / "study" / "data" / "images").mkdir(parents=True)
    for folder in ("study", "elsewhere", "gone"):
        check_tree(tmp_path / folder)
    (tmp_path / "study" / "data" / "images" / "0.jpg").symlink_to(tmp_path / "set" / "0.jpg")  # as holdout= makes them
    check_tree(tmp_path / "study", read="data")
    with pytest.raises(IMAError, match=OUT):
        check_tree(tmp_path / "study")
    for written in ("data.yaml", "images.cache", "images/0.npy"):
        (tmp_path / "study" / "data" / written).symlink_to(tmp_path / "mine.txt")
        with pytest.raises(IMAError, match=OUT):
            check_tree(tmp_path / "study", read="data")
        (tmp_path / "study" / "data" / written).unlink()
    (tmp_path / "study" / "data" / "labels").symlink_to(tmp_path)
    with pytest.raises(IMAError, match=OUT):
        check_tree(tmp_path / "study", read="data")
    (tmp_path / "study" / "data" / "labels").unlink()
    (tmp_path / "study" / "data" / "images" / "0.jpg").unlink()
    (tmp_path / "study" / "data" / "images").rmdir()
    (tmp_path / "study" / "data").rmdir()
    (tmp_path / "study" / "other").symlink_to(tmp_path)
    check_tree(tmp_path / "study", apart="other")
    (tmp_path / "study" / "other").unlink()
    (tmp_path / "study" / "data").symlink_to(tmp_path)
    with pytest.raises(IMAError, match=OUT):
        check_tree(tmp_path / "study", read="data")


@pytest.mark.parametrize(
    ("name", "change", "message"), [BAD[case] for case in ("arguments elsewhere", "labels elsewhere")]
)
def test_a_folder_that_is_written_over_is_looked_through_too(
    name: str,
    change: Callable[[Path], Any],
    message: str,
    tiny_data: Path,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    change(run / name)
    words = [f"teacher={tiny_checkpoint(seed=1)}", f"student={tiny_checkpoint()}", f"data={tiny_data}", "device=cpu"]
    assert cli.main(["train", *words, f"project={tmp_path}", "name=run", "exist_ok=True"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"ima-yolo: {run / name}: {message}")


def test_results_are_not_written_into_a_pipe(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "0.jpg")
    place = [f"project={tmp_path}", "name=run", "exist_ok=True", "imgsz=64"]
    for words in (["predict", f"source={tiny_data.parent / 'images' / 'val'}"], ["val", f"data={tiny_data}"]):
        assert cli.main([*words, f"model={tiny_checkpoint()}", *place]) == 2
        assert PIPE in capsys.readouterr().err
    (tmp_path / "run" / "0.jpg").unlink()
    (tmp_path / "run" / "0.jpg").symlink_to("/nowhere/mine.jpg")
    assert (
        cli.main(["predict", f"source={tiny_data.parent / 'images' / 'val'}", f"model={tiny_checkpoint()}", *place])
        == 2
    )
    assert OUT in capsys.readouterr().err
