from __future__ import annotations

import errno
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ultralytics  # noqa: F401  (its log keeps the stream that is there when it is first imported)
from ultralytics.engine.exporter import Exporter
from ultralytics.utils import LOGGER, SETTINGS, ops

from ima_yolo import __version__, cli
from ima_yolo.commands.export import OTHER_WORDS
from ima_yolo.commands.options import faults_of_the_user, with_recipe
from ima_yolo.errors import IMAError, one_line
from ima_yolo.plain_files import check_addresses

TRAIN = ["epochs=1", "imgsz=64", "batch=4", "workers=0", "optimizer=AdamW"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(list(words))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("True", True),
        ("false", False),
        ("None", None),
        ("[8,16]", [8, 16]),
        ("0,1", (0, 1)),
        ("best.pt", "best.pt"),
        ("a=b", "a=b"),
        ("", ""),
        ("__import__('os')", "__import__('os')"),
        ("[" * 5000, "[" * 5000),
        ("3in1", "3in1"),
        ("1if", "1if"),
    ],
)
def test_values_are_read_as_yolo_reads_them(text: str, value: Any) -> None:
    assert cli.value_of(text) == value


@pytest.mark.parametrize("words", ["epochs=3", "epochs = 3", "epochs= 3", "epochs =3"])
def test_an_equals_sign_may_stand_apart(words: str) -> None:
    assert cli.read_options(["resume", *words.split(), "plots=False"]) == {
        "epochs": 3,
        "plots": False,
        "": ["resume"],
    }


def test_options_keep_bare_words_apart() -> None:
    assert cli.read_options(["a=1", "resume", "--b=x"]) == {"a": 1, "b": "x", "": ["resume"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "'trian' is not a command (did you mean 'train'?)"),
        (["xyz"], "'xyz' is not a command; commands: train, val"),
        (["train", "epochs"], "'epochs': expected key=value"),
        (["train", "=3"], "expected key=value"),
        (["train", "a=1", "a=2"], "given twice"),
        (["train"], "teacher= is missing"),
        (["train", "teacher=gone.pt", "student=yolo26n.yaml"], "teacher=gone.pt: file not found"),
        (["train", "cfg=gone.yaml"], "cfg=gone.yaml"),
        (["train", "cfg=gone"], "cfg=gone: there is no such recipe; there are cityscapes, coco,"),
        (["train", "resume"], "resume: no checkpoint"),
        (["val"], "model= is missing"),
        (["val", "model=gone.pt"], "model=gone.pt: no such file"),
        (["predict", "model=gone.onnx"], "model=gone.onnx: no such file"),
        (["export", "model=gone.pt"], "model=gone.pt: no such file"),
        (["cfg", "epochs=1"], "'epochs=': this command takes no key=value"),
        (["version", "twice"], "'twice': this command takes nothing"),
        (["cfg", "gone"], "cfg=gone: there is no such recipe; there are cityscapes, coco,"),
        (["help", "gone"], "'gone' is not a command"),
        (["demo", "sede=1"], "did you mean 'seed'?"),
        (["demo", "seed=-1"], "seed=-1"),
        (["demo", "seed=99999999999"], "seed=99999999999: expected a whole number from 0 to 4294900000"),
        (["demo", "device=99"], "Invalid CUDA 'device=99' requested"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, words: list[str], message: str) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("ima-yolo: ")
    assert out == ""


def test_a_message_is_short_and_harmless_to_a_terminal(capsys, tmp_path: Path) -> None:
    _, _, err = run(capsys, "export", f"model={'x' * 5000}")
    assert err.startswith("ima-yolo: xxx")
    assert "too long for a file" in err
    assert len(err) < 1100
    (tmp_path / "r.yaml").write_text('"\\e[2J": 1\n')
    _, _, err = run(capsys, "train", "cfg=r.yaml")
    assert err == "ima-yolo: '\\x1b[2J' is not a setting\n"


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMA_TRACEBACK", "1")
    with pytest.raises(IMAError):
        cli.main(["val"])


def test_interruption_has_its_own_code(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: dict[str, Any]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ima_yolo.commands.info.version", interrupt)
    code, _, err = run(capsys, "version")
    assert code == 130
    assert err == "ima-yolo: interrupted\n"
    monkeypatch.setattr("ima_yolo.commands.experiment.compare", interrupt)
    code, _, err = run(capsys, "compare")
    assert code == 130
    assert err == "ima-yolo: interrupted; the same command goes on where it was\n"


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_the_overview_names_every_command(capsys, words: list[str]) -> None:
    code, out, _ = run(capsys, *words)
    assert code == 0
    for name, (_, _, what) in cli.COMMANDS.items():
        assert f"  {name} " in out
        assert what in out


@pytest.mark.parametrize("name", cli.COMMANDS)
@pytest.mark.parametrize("spelling", ["help {}", "{} --help"])
def test_every_command_has_a_page_with_an_example(capsys, name: str, spelling: str) -> None:
    code, out, _ = run(capsys, *spelling.format(name).split())
    assert code == 0
    assert f"ima-yolo {name}" in out.split("\n", 2)[2]


def test_cfg_prints_the_defaults(capsys) -> None:
    code, out, _ = run(capsys, "cfg")
    assert code == 0
    assert out.strip() == (files("ima_yolo.cfg") / "default.yaml").read_text().strip()


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_version_names_what_is_in_use(capsys, words: list[str]) -> None:
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.startswith(f"ima-yolo {__version__}, Python ")
    assert "ultralytics" in out


def test_every_command_leads_to_a_function() -> None:
    from importlib import import_module

    for module, function, _ in cli.COMMANDS.values():
        assert callable(getattr(import_module(module), function))


def test_the_entry_point_is_installed() -> None:
    done = subprocess.run([sys.executable, "-m", "ima_yolo", "version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ima-yolo ")


@pytest.fixture
def pair(tiny_checkpoint: Callable[..., Path]) -> list[str]:
    return [f"teacher={tiny_checkpoint('yolo26s.yaml', seed=1)}", f"student={tiny_checkpoint('yolo26n.yaml')}"]


def test_the_whole_line(capfd, caplog, pair: list[str], tiny_data: Path, tmp_path: Path) -> None:
    """Train, validate, export and predict, as typed."""
    caplog.set_level("INFO", "ultralytics")
    code, out, err = run(capfd, "train", *pair, f"data={tiny_data}", *TRAIN, f"project={tmp_path}", "name=run")
    assert code == 0, err
    shown = caplog.text
    for heading in ("mAP50-95", "mAP50", "parameters", "GFLOPs", "ms/image"):
        assert heading in shown
    best = tmp_path / "run" / "weights" / "best.pt"
    for written in (best, tmp_path / "run" / "results.csv", tmp_path / "run" / "side_by_side.png"):
        assert written.stat().st_size > 0
        assert str(written) in shown
    place = f"project={tmp_path}"

    code, out, err = run(capfd, "val", f"model={best}", f"data={tiny_data}", "imgsz=64", place, "plots=False")
    assert code == 0, err
    code, out, err = run(capfd, "export", f"model={best}", "format=onnx", "imgsz=64")
    assert code == 0, err
    onnx = best.with_suffix(".onnx")
    assert onnx.exists()
    assert "ifference" in caplog.text

    source = f"source={tiny_data.parent / 'images' / 'val'}"
    for model in (onnx, best):
        code, out, err = run(
            capfd, "predict", f"model={model}", source, "imgsz=64" if model is best else "conf=0.25", place
        )
        assert code == 0, err
        assert "image 4/4" in out + caplog.text


def test_a_recipe_gives_the_keys_and_the_command_line_wins(monkeypatch, tmp_path: Path, capsys) -> None:
    seen: dict[str, Any] = {}

    class Trainer:
        def __init__(self, overrides: dict[str, Any]) -> None:
            seen.update(overrides)
            raise IMAError("far enough")

    monkeypatch.setattr("ima_yolo.trainer.IMATrainer", Trainer)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("teacher: t.pt\nstudent: s.pt\nepochs: 5\nima_loss: cwd\n")
    assert run(capsys, "train", f"cfg={recipe}", "epochs=7")[0] == 2
    assert seen == {"teacher": "t.pt", "student": "s.pt", "epochs": 7, "ima_loss": "cwd"}


def test_resume_as_yolo_users_write_it(capfd, caplog, pair: list[str], tiny_data: Path, tmp_path: Path) -> None:
    from ima_yolo import IMATrainer

    options = cli.read_options([*pair, f"data={tiny_data}", *TRAIN[1:], "epochs=2", "plots=False"])
    trainer = IMATrainer(overrides={**options, "project": str(tmp_path)})

    def stop(_: Any) -> None:
        raise KeyError

    trainer.add_callback("on_model_save", stop)
    with pytest.raises(KeyError):
        trainer.train()
    caplog.set_level("INFO", "ultralytics")
    code, _, err = run(capfd, "train", "resume=True", f"model={trainer.last}")
    assert code == 0, err
    assert "Resuming training" in caplog.text
    assert len(trainer.csv.read_text().splitlines()) == 3


def test_an_onnx_prediction_never_imports_torch(
    tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path
) -> None:
    from ima_yolo.export.onnx import export_onnx

    onnx = export_onnx(tiny_checkpoint(), output=tmp_path / "tiny.onnx", imgsz=64).path
    code = (
        "import sys; sys.modules.update(torch=None, ultralytics=None, torchvision=None)\n"
        "from ima_yolo.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["predict", f"model={onnx}", f"source={tiny_data.parent / 'images' / 'val'}", f"project={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "image 4/4" in done.stdout


def test_export_to_a_place_and_compared_on_pictures_of_one_s_own(
    capsys, tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path
) -> None:
    images = tiny_data.parent / "images" / "val"
    words = [f"model={tiny_checkpoint()}", f"output={tmp_path / 'mine.onnx'}", f"images={images}", "imgsz=64"]
    code, _, err = run(capsys, "export", *words)
    assert code == 0, err
    assert (tmp_path / "mine.onnx").exists()


@pytest.mark.parametrize("name", ["yolo26n", "yolo26n.pt"])
def test_a_published_checkpoint_goes_by_its_name(
    capsys, name: str, tiny_checkpoint, tmp_path: Path, monkeypatch
) -> None:
    def download(file: str, **_: Any) -> str:
        Path(file).write_bytes(tiny_checkpoint().read_bytes())
        return file

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", download)
    code, _, err = run(capsys, "export", f"model={name}", "imgsz=64")
    assert code == 0, err
    assert (tmp_path / "yolo26n.onnx").exists()


def test_a_failed_parity_leaves_no_file_and_code_2(capsys, tiny_checkpoint, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        "ima_yolo.export.onnx.check_parity", lambda *_: (_ for _ in ()).throw(IMAError("differs by 3 px"))
    )
    model = tmp_path / "copy.pt"
    model.write_bytes(tiny_checkpoint().read_bytes())
    code, _, err = run(capsys, "export", f"model={model}", "imgsz=64")
    assert code == 2
    assert "differs by 3 px" in err
    assert not model.with_suffix(".onnx").exists()


def test_a_switch_may_be_a_bare_word() -> None:
    from ima_yolo.commands.options import no_bare_words, switches

    assert no_bare_words({"": ["resume", "plots"], "epochs": 1}, switches()) == {
        "resume": True,
        "plots": True,
        "epochs": 1,
    }
    with pytest.raises(IMAError, match="'epochs': expected key=value"):
        no_bare_words({"": ["epochs"]}, switches())


@pytest.mark.parametrize("word", ["student", "model"])
def test_a_student_on_the_command_line_wins_over_either_word_in_a_recipe(word: str, tmp_path: Path) -> None:

    recipe = tmp_path / "mine.yaml"
    recipe.write_text("student: a.pt\nepochs: 5\nsave_dir: runs/old\n")
    assert with_recipe({"cfg": str(recipe), word: "b.pt"}) == {word: "b.pt", "epochs": 5}
    assert with_recipe({"cfg": str(recipe)}) == {"student": "a.pt", "epochs": 5}


def test_predict_as_a_process_of_its_own(tiny_checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    """Ultralytics takes a program whose name ends in "yolo" for its own command and behaves in another way."""
    program = Path(sys.executable).with_name("ima-yolo")
    words = [f"model={tiny_checkpoint()}", f"source={tiny_data.parent / 'images' / 'val'}", "imgsz=64"]
    done = subprocess.run(
        [program, "predict", *words, f"project={tmp_path}", "device=cpu"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("predict/*.jpg"))) == 4


def test_a_file_of_augmentations_that_is_not_there(capsys, pair: list[str], tiny_data: Path, tmp_path: Path) -> None:
    words = [*pair, f"data={tiny_data}", f"project={tmp_path / 'runs'}", "augmentations=foo"]
    code, _, err = run(capsys, "train", *words)
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_an_exported_model_is_not_validated_on_data_that_nobody_named(capsys, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    code, _, err = run(capsys, "val", f"model={tmp_path / 'x.onnx'}", "imgsz=64")
    assert (code, err.count("\n")) == (2, 1)
    assert "data= is missing" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.parametrize("command", ["val", "predict"])
def test_a_project_that_cannot_be_written_is_named(command: str, capsys, tiny_checkpoint, tiny_data: Path) -> None:
    source = f"data={tiny_data}" if command == "val" else f"source={tiny_data.parent / 'images' / 'val'}"
    code, _, err = run(capsys, command, f"model={tiny_checkpoint()}", source, "project=/proc/runs", "imgsz=64")
    assert (code, err.count("\n")) == (2, 1)
    assert "project=/proc/runs: cannot write to /proc" in err


@pytest.mark.parametrize("words", [["ima_loss=l2"], ["data=gone.yaml"]])
def test_a_bad_validation_leaves_no_folder(capsys, words: list[str], tiny_checkpoint, tmp_path: Path) -> None:
    code, _, err = run(capsys, "val", f"model={tiny_checkpoint()}", *words, f"project={tmp_path / 'runs'}")
    assert code == 2
    assert err.count("\n") == 1
    assert "did you mean 'ima_loss'" not in err
    assert not (tmp_path / "runs").exists()


SENT = ["sent:build", "[a.pt, sent:build]", "'a.pt, sent:build'", "['a.pt,sent:build']", "[',sent:build']"]


@pytest.mark.parametrize("teacher", SENT)
def test_a_recipe_runs_no_teacher(teacher: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sent.py").write_text("open('ran', 'w')\ndef build(): ...\n")
    (tmp_path / "recipe.yaml").write_text(f"teacher: {teacher}\n")
    for command in ("train", "compare"):
        code, _, err = run(capsys, command, "cfg=recipe.yaml", "student=yolo26n.yaml", "data=gone.yaml", "arms=ima")
        assert (code, err.count("\n")) == (2, 1)
        assert "cfg=recipe.yaml: it would run its teacher; if that is yours, add teacher=" in err
    assert with_recipe({"cfg": "recipe.yaml", "teacher": "sent:build"}) == {"teacher": "sent:build"}
    (tmp_path / "recipe.yaml").write_text(f"ima: {{teacher: {teacher}, ima_trust: true}}\n")
    for more in ([], ["teacher=yolo26s.yaml"]):
        code, _, err = run(capsys, "train", "cfg=recipe.yaml", "student=yolo26n.yaml", "data=gone.yaml", *more)
        assert (code, err) == (2, "ima-yolo: cfg=recipe.yaml: 'ima' is not a setting\n")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["teacher", "student", "data", "pretrained", "ima_unlabelled"])
def test_no_address_with_a_password_is_kept(
    key: str, capsys, tiny_data: Path, tiny_checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {
        "teacher": tiny_checkpoint(seed=1),
        "student": tiny_checkpoint(),
        "data": tiny_data,
        "project": tmp_path / "r",
    }
    words |= {key: "http://bob:hu,sh@127.0.0.1:9/x.pt"}
    fetched: list[Any] = []
    monkeypatch.setattr("ultralytics.utils.downloads.safe_download", lambda *args, **_: fetched.append(args))
    for command in ("train", "compare"):
        code, out, err = run(capsys, command, *(f"{name}={value}" for name, value in words.items()))
        assert (code, err.count("\n")) == (2, 1)
        assert f"{key}=" in err
        assert "what stands before its @ would be kept in files" in err
        assert "hu,sh" not in out + err
    assert not (tmp_path / "r").exists()
    assert fetched == []
    words = [f"student={tiny_checkpoint()}", f"data={tiny_data}", "candidates=http://bob:hu,sh@127.0.0.1:9/x.pt"]
    code, out, err = run(capsys, "teachers", *words)
    assert (code, err.count("\n"), "hu,sh" in out + err) == (2, 1, False)
    for more in (
        ["val", f"data={tiny_data}"],
        ["predict", "source=x.jpg"],
        ["export"],
        ["train", "cfg=http://a:hu,sh@h/r.yaml"],
    ):
        code, out, err = run(capsys, *more, "model=http://bob:hu,sh@127.0.0.1:9/x.pt")
        assert (code, "hu,sh" in out + err) == (2, False)


def test_a_model_that_cannot_be_fetched_leaves_no_folder(
    capsys, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "weights_dir", str(tmp_path / "new" / "weights"))
    code, _, err = run(capsys, "val", f"data={tiny_data}", "model=http://127.0.0.1:9/x.pt")
    assert (code, "x.pt" in err) == (2, True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    run(capsys, "val", f"data={tiny_data}", "model=http://127.0.0.1:9/x.pt")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("mode", ["val", "predict", "nan"])
def test_a_training_trains(mode: str, capsys, tiny_data: Path, tiny_checkpoint, tmp_path: Path) -> None:
    words = [f"teacher={tiny_checkpoint(seed=1)}", f"student={tiny_checkpoint()}", f"data={tiny_data}"]
    code, _, err = run(capsys, "train", *words, f"mode={mode}", f"project={tmp_path / 'r'}")
    assert (code, err.count("\n")) == (2, 1)
    assert "mode=" in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [["cfg"], ["help"], ["version"], ["val"]])
def test_a_closed_stdout_is_no_fault(words: list[str], tiny_data: Path, tiny_checkpoint, tmp_path: Path) -> None:
    if words == ["val"]:
        words = [
            "val",
            f"model={tiny_checkpoint()}",
            f"data={tiny_data}",
            "imgsz=64",
            f"project={tmp_path}",
            "workers=0",
        ]
    typed = shlex.join([sys.executable, "-m", "ima_yolo", *words])
    found = subprocess.run(f"{typed} >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 0
    assert "Traceback" not in found.stderr


class Camera:
    """Stands for cv2.VideoCapture; shows one picture and goes."""

    def __init__(self, _: str) -> None:
        """Open nothing."""

    def isOpened(self) -> bool:  # noqa: N802  (OpenCV's name)
        return True

    def get(self, _: int) -> float:
        return 1.0

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.full((64, 64, 3), 99, np.uint8)

    def release(self) -> None:
        """Close nothing."""


def test_ultralytics_tells_no_password_of_a_source(
    capsys, caplog: pytest.LogCaptureFixture, tiny_checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a camera, after which it names files; a file it would fetch, and say so past its logger."""
    monkeypatch.setattr("ultralytics.data.loaders.cv2.VideoCapture", Camera)
    before = ops.clean_str
    words = [f"model={tiny_checkpoint()}", "imgsz=64", f"project={tmp_path}", "name=seen", "save_txt=True", "conf=0"]
    code, out, err = run(capsys, "predict", *words, "source=rtsp://bob:hush@127.0.0.1:9/x")
    assert (code, "hush" in out + err + caplog.text) == (0, False)
    assert any("1/1: rtsp://***@127.0.0.1:9/x... Success" in line for line in caplog.messages)
    written = [path.name for path in (tmp_path / "seen").rglob("*") if path.is_file()]
    assert any(name.startswith("rtsp") and name.endswith(".txt") for name in written)
    assert not any("hush" in name for name in written)
    assert ops.clean_str is before
    assert not any(getattr(one, "__module__", "").startswith("ima_yolo") for one in LOGGER.filters)
    code, out, err = run(capsys, "predict", *words, "source=http://bob:hush@127.0.0.1:9/a.jpg")
    assert (code, err.count("\n"), "hush" in out + err, "fetch it, and give the file" in err) == (2, 1, False, True)
    assert run(capsys, "predict", *words, "source=http://bob:hush@127.0.0.1:9/axis-cgi/mjpg/video.cgi")[0] == 0


def test_nobody_hands_settings_past_the_checks(capsys, tiny_data: Path) -> None:
    words = ["teacher=gone.pt", "student=yolo26n.yaml", f"data={tiny_data}", "ima={'teacher': 'sent:build'}"]
    code, _, err = run(capsys, "train", *words)
    assert (code, err.startswith("ima-yolo: 'ima' is not a setting")) == (2, True)


@pytest.mark.parametrize("source", ["rtsps://bob:hu@hush@h/x", "http://bob:hush@[::1/a.png", "ftp://hush@h/a.png"])
def test_no_message_shows_a_password(source: str, capsys, tiny_checkpoint, tiny_data: Path) -> None:
    for words in (
        ["predict", "model=gone.onnx", f"source={source}"],
        ["val", f"model={tiny_checkpoint()}", f"data={source}"],
        ["train", f"teacher={source}", f"student={tiny_checkpoint()}", f"data={tiny_data}"],
        ["cfg", source],
    ):
        code, out, err = run(capsys, *words)
        assert code == 2
        assert "hush" not in out + err
    assert one_line(f"{source} is not there").startswith(source.partition("://")[0] + "://***@")


@pytest.mark.parametrize("path", ["C:/me@work/a.yaml", "/data/me@work/a.yaml", "http://h/me@work/a.yaml"])
def test_an_at_in_a_path_is_no_password(path: str) -> None:
    assert one_line(path) == path
    check_addresses({"data": path})


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("val", "batch=0"),
        ("val", "batch=false"),
        ("val", "imgsz=abc"),
        ("val", "imgsz=0"),
        ("val", "imgsz=true"),
        ("val", "imgsz='0'"),
        ("val", "imgsz=0.0"),
        ("val", "imgsz=[]"),
        ("predict", "imgsz=64,64,64"),
        ("predict", "imgsz=1000000"),
        ("val", "classes=99"),
        ("val", "classes=[0,3]"),
        ("val", "classes=-1"),
        ("val", "classes=a"),
        ("predict", "classes=99"),
        ("predict", "classes=[0,-1]"),
        ("val", "device=99"),
        ("predict", "embed=1"),
        ("predict", "embed=[99]"),
        ("predict", "embed=[0,-1]"),
        ("predict", "classes=abc"),
        ("predict", "task=" + "x" * 300),
        ("val", "task=" + "x" * 300),
    ],
)
def test_a_refusal_that_comes_late_leaves_no_folder(
    command: str, word: str, capsys, tiny_checkpoint, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "runs_dir", str(tmp_path / "runs"))
    source = f"data={tiny_data}" if command == "val" else f"source={tiny_data.parent / 'images' / 'val'}"
    code, _, err = run(capsys, command, f"model={tiny_checkpoint()}", source, "workers=0", "imgsz=64", word)
    assert (code, err.strip().count("\n")) == (2, 0)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "detect" / "val").mkdir(parents=True)
    (tmp_path / "runs" / "mine.txt").touch()
    run(capsys, command, f"model={tiny_checkpoint()}", source, "workers=0", "imgsz=64", word)
    assert sorted(path.name for path in (tmp_path / "runs").rglob("*")) == ["detect", "mine.txt", "val"], "only its own"


@pytest.mark.parametrize("opset", ["99", "0", "high"])
def test_an_opset_that_nobody_writes_is_one_line(opset: str, capfd, tiny_checkpoint) -> None:
    assert cli.main(["export", f"model={tiny_checkpoint()}", "imgsz=64", f"opset={opset}"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"ima-yolo: opset={opset}: expected a whole number from 1 to ")


@pytest.mark.parametrize("command", ["val", "predict"])
@pytest.mark.parametrize("batch", ["0", "-1", "0.5", "2.0", "true", "1e400"])
def test_a_batch_holds_whole_pictures(command: str, batch: str, capsys, tiny_checkpoint) -> None:
    code, _, err = run(capsys, command, f"model={tiny_checkpoint()}", "data=gone.yaml", f"batch={batch}")
    assert (code, err.count("\n")) == (2, 1)
    assert "batch=" in err
    assert "expected a whole number from 1 up" in err


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark", "model={model}", "output=/proc/x"],
        ["teachers", "student=gone.pt", "data=gone.yaml", "candidates=gone.pt", "output=/proc/x.png"],
    ],
)
def test_an_output_that_cannot_be_written_is_found_first(words: list[str], capsys, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    code, _, err = run(capsys, *(word.format(model=tmp_path / "x.onnx") for word in words))
    assert (code, err.count("\n")) == (2, 1)
    assert f"{words[-1]}: cannot write to /proc" in err


@pytest.mark.parametrize("providers", ["1", "1.5", "True", "[1]", "{}", "[['CPUExecutionProvider']]"])
def test_providers_are_names(providers: str, capsys, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    code, _, err = run(
        capsys, "predict", f"model={tmp_path / 'x.onnx'}", f"source={tmp_path}", f"providers={providers}"
    )
    assert (code, err.count("\n")) == (2, 1)


def test_a_line_has_no_colours_and_obeys_nothing() -> None:
    assert one_line("\x1b[34m\x1b[1mtrain: \x1b[0mno labels\n in \x07x") == r"train: no labels in \x07x"


def test_what_opencv_refuses_is_one_line() -> None:
    with pytest.raises(IMAError, match="OpenCV"), faults_of_the_user():
        cv2.resize(np.zeros((2, 2, 3), np.uint8), (1 << 30, 1 << 30))


def test_the_name_of_a_format_may_be_in_capitals(capsys, tiny_checkpoint, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        "ima_yolo.export.onnx.check_parity", lambda *_: (_ for _ in ()).throw(IMAError("differs by 3 px"))
    )
    model = tmp_path / "copy.pt"
    model.write_bytes(tiny_checkpoint().read_bytes())
    assert run(capsys, "export", f"model={model}", "format=ONNX", "imgsz=64")[0] == 2


@pytest.mark.parametrize(("typed", "meant"), [("onxx", " (did you mean 'onnx'?)"), ("nan", ""), ("-", ""), ("", "")])
def test_a_misspelt_format_is_not_guessed(typed: str, meant: str, capsys, tiny_checkpoint) -> None:
    """Ultralytics takes nan for qnn, and fetches data for that; onxx would go past the comparison with torch."""
    code, _, error = run(capsys, "export", f"model={tiny_checkpoint()}", f"format={typed}", "imgsz=64")
    assert code == 2
    assert error.startswith(f"ima-yolo: format={typed}: there is no such format{meant}")
    assert error.count("\n") == 1


def test_other_names_of_formats_are_those_of_ultralytics() -> None:
    source = inspect.getsource(Exporter.__call__)
    assert [word for word in OTHER_WORDS if f'"{word}"' not in source] == []
    aliases = re.findall(r"if fmt in \{([^}]*)\}: *(?:#.*)?\n *(?:fmt|LOGGER)", source)
    assert {word.strip(' "') for found in aliases for word in found.split(",")} == set(OTHER_WORDS)


def test_a_pipe_that_closes_and_a_terminal_of_few_letters(tmp_path: Path) -> None:
    def process(*words: str, encoding: str = "ascii") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        command = [sys.executable, "-m", "ima_yolo", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)

    with process("cfg") as closed:
        assert closed.stdout is not None
        assert closed.stderr is not None
        closed.stdout.close()
        assert closed.stderr.read() == b""
        assert closed.wait(60) in (0, 1)
    with process("val", "model=\u6f22.pt") as narrow:
        assert narrow.communicate(timeout=60)[1] == b"ima-yolo: model=\\u6f22.pt: no such file\n"
        assert narrow.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_to_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "ima_yolo", "cfg"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No space left" in done.stderr


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST])
def test_a_place_that_is_not_ours_is_one_line(capsys, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As a study's folder that is read-only, or a folder where the report goes."""

    def refused(_: Any) -> int:
        raise OSError(number, os.strerror(number), "runs/compare/report.partial")

    monkeypatch.setattr("ima_yolo.commands.info.cfg", refused)
    code, _, error = run(capsys, "cfg")
    assert (code, error.count("\n")) == (2, 1)
    assert "runs/compare/report.partial" in error


@pytest.mark.parametrize("command", ["val", "predict", "export"])
def test_a_recipe_serves_every_command(capsys, command: str, tmp_path: Path, monkeypatch) -> None:
    code, _, error = run(capsys, command, "cfg=gone.yaml", "model=x.pt")
    assert code == 2
    assert error.startswith("ima-yolo: cfg=gone.yaml: ")
    (tmp_path / "r.yaml").write_text("model: named-in-recipe.pt\n")
    code, _, error = run(capsys, command, f"cfg={tmp_path / 'r.yaml'}")
    assert (code, error) == (2, "ima-yolo: model=named-in-recipe.pt: no such file\n")
    assert "cfg= is empty" in run(capsys, command, "cfg=")[2]


def test_the_record_of_a_run_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "ima.yaml").write_text("teacher: a.pt\nima_loss: mgd\nteacher_digest: 12ab\n")
    assert with_recipe({"cfg": str(tmp_path / "ima.yaml"), "epochs": 3}) == {
        "teacher": "a.pt",
        "ima_loss": "mgd",
        "epochs": 3,
    }
