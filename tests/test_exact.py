"""A run that was stopped and resumed ends with the weights and the rows of one that never stopped, bit for bit."""

from __future__ import annotations

import csv
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils.torch_utils import EarlyStopping

from ima_yolo import IMATrainer, cli
from ima_yolo.checkpoint import DAMAGED
from ima_yolo.errors import IMAError
from ima_yolo.exact import NOT_YET, Cadence, trim_results
from ima_yolo.files import replacing
from ima_yolo.random_streams import set_streams, streams

EVENTS = ("on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_val_start", "on_model_save")


class Stop(BaseException):
    """Ends a run at any point, as a signal would."""


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "teacher": tiny_checkpoint("yolo26s-few.yaml", seed=1),
        "model": str(tiny_checkpoint()),
        "data": str(tiny_data),
        "epochs": 4,
        "imgsz": 64,
        "batch": 3,
        "workers": 0,
        "plots": False,
        "device": "cpu",
        "lr0": 0.002,
        "optimizer": "AdamW",
        "warmup_epochs": 1,
        "close_mosaic": 2,
        "project": str(tmp_path),
        "ima_gate": False,  # or an untrained teacher, which knows nothing more, rests
    }


def outcome(trainer: IMATrainer) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """Final weights, and the rows of results.csv but for the time that they took."""
    weights = torch_safe_load(trainer.last, safe_only=True)[0]["model"].state_dict()
    with trainer.csv.open() as file:
        return weights, [[row[0], *row[2:]] for row in csv.reader(file)]


def assert_same(found: IMATrainer, expected: tuple[dict[str, torch.Tensor], list[list[str]]]) -> None:
    weights, rows = outcome(found)
    assert rows == expected[1]
    for name, value in expected[0].items():
        assert torch.equal(weights[name], value), name


def stopped(options: dict[str, Any], event: str, count: int) -> Path:
    """Start a run and stop it at the `count`-th call of an event; return its last checkpoint."""
    trainer = IMATrainer(overrides={**options, "name": f"{event}-{count}"})
    calls = iter(range(count))

    def stop(_: Any) -> None:
        if next(calls, None) is None:
            raise Stop

    if event == "on_val_start":
        trainer.add_callback("on_train_start", lambda t: t.validator.add_callback(event, stop))
    else:
        trainer.add_callback(event, stop)
    with pytest.raises(Stop):
        trainer.train()
    return Path(trainer.last)


SETTINGS: dict[str, dict[str, Any]] = {
    "accumulating": {"nbs": 12, "ima_every": 2},  # steps of four batches, three batches an epoch
    "full batches, gated": {"batch": 4, "nbs": 4, "ima_gate": True},
    "multi_scale": {"multi_scale": 0.5, "nbs": 3, "ima_cls": 1, "ima_teacher_runtime": "onnx"},
    "mosaic closed late": {"nbs": 6, "close_mosaic": 1, "ima_teacher_runtime": "bf16"},
    "SGD, frequencies": {"optimizer": "SGD", "lr0": 0.01, "ima_mask": "frequency", "cache": "ram"},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_resumed_run_equals_one_that_never_stopped(case: str, options: dict[str, Any]) -> None:
    options = {**options, **SETTINGS[case]}
    whole = IMATrainer(overrides={**options, "name": "whole"})
    whole.train()
    expected = outcome(whole)
    names, *epochs = expected[1]
    taught = [float(row[names.index("train/ima_loss")]) > 0 for row in epochs]
    assert taught == [True] * 4 or options["ima_gate"]
    rng = random.Random(case)
    for _ in range(5):  # random points after the first checkpoint: three batches an epoch, four epochs
        event = rng.choice(EVENTS)
        count = rng.randint(3, 10) if "batch" in event else rng.randint(1, 2)
        last = stopped(options, event, count)
        trainer = IMATrainer(overrides={"resume": str(last)})
        trainer.train()
        assert_same(trainer, expected)


def test_a_run_that_is_stopped_twice(options: dict[str, Any]) -> None:
    options = {**options, "nbs": 12}
    whole = IMATrainer(overrides={**options, "name": "whole"})
    whole.train()
    last = stopped(options, "on_train_batch_end", 4)
    second = IMATrainer(overrides={"resume": str(last)})
    calls = iter(range(4))

    def stop(_: Any) -> None:
        if next(calls, None) is None:
            raise Stop

    second.add_callback("on_train_batch_end", stop)
    with pytest.raises(Stop):
        second.train()
    third = IMATrainer(overrides={"resume": str(last)})
    third.train()
    assert_same(third, outcome(whole))


FINAL: dict[str, tuple[str, int, dict[str, Any]]] = {
    "after the last checkpoint": ("on_model_save", 3, {}),
    "before the evaluation": ("on_fit_epoch_end", 3, {}),
    "in the evaluation": ("on_val_start", 4, {}),
    "after the evaluation": ("on_fit_epoch_end", 4, {}),
    "where it stopped early": ("on_val_start", 3, {"patience": 1}),
}


@pytest.mark.parametrize("case", FINAL)
def test_a_run_that_was_stopped_after_its_last_epoch_is_finished(
    case: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    event, count, change = FINAL[case]
    options = {**options, **change}
    if "patience" in change:  # no accuracy, which these few steps do not reach, is never an early stop
        monkeypatch.setattr(EarlyStopping, "__call__", lambda stopper, epoch, fitness: epoch >= 3)
    whole = IMATrainer(overrides={**options, "name": "whole"})
    whole.train()
    last = stopped(options, event, count)
    trainer = IMATrainer(overrides={"resume": str(last)})
    batches_seen: list[int] = []
    trainer.add_callback("on_train_batch_start", lambda t: batches_seen.append(t.epoch))
    trainer.train()
    assert batches_seen == []
    assert_same(trainer, outcome(whole))
    for name in ("last.pt", "best.pt"):
        content, twin = (torch_safe_load(run.wdir / name, safe_only=True)[0] for run in (trainer, whole))
        assert content["epoch"] == -1
        assert content["optimizer"] is None
        assert content["ima"].keys() == twin["ima"].keys()
        assert content["train_metrics"] == twin["train_metrics"]
    assert {key: value for key, value in trainer.metrics.items() if "loss" not in key} == {
        key: value for key, value in whole.metrics.items() if "loss" not in key
    }
    assert sorted(file.name for file in trainer.wdir.iterdir()) == ["best.pt", "last.pt"]
    with pytest.raises(IMAError, match="finished, nothing to resume"):
        IMATrainer(overrides={"resume": str(last)})


def test_best_finished_and_last_not(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed by a signal between the two: nothing is tidied up, and best.pt has lost its optimizer already."""
    whole = IMATrainer(overrides={**options, "name": "whole"})
    whole.train()
    monkeypatch.setattr("ima_yolo.trainer.checkpoint.put_back", lambda last: None)
    killed = IMATrainer(overrides={**options, "name": "killed"})
    killed.train()
    monkeypatch.undo()
    assert (killed.wdir / ".finishing" / "last.pt").exists()
    assert torch_safe_load(killed.best, safe_only=True)[0]["epoch"] == -1
    trainer = IMATrainer(overrides={"resume": str(killed.last)})
    trainer.train()
    assert_same(trainer, outcome(whole))
    assert sorted(file.name for file in trainer.wdir.iterdir()) == ["best.pt", "last.pt"]


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    """Let the disk be full in the middle of the `count`-th writing of a file, and ever after."""
    calls, plain = iter(range(count)), Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        if path.name == name and next(calls, None) is None:
            plain(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return plain(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize(("name", "count"), [("last.pt", 2), ("best.pt", 0)])
def test_a_full_disk_costs_one_line_and_no_checkpoint(
    name: str, count: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = IMATrainer(overrides={**options, "name": "whole"})
    whole.train()
    full_disk(monkeypatch, name, count)
    words = [f"{key}={value}" for key, value in options.items()]
    capfd.readouterr()
    assert cli.main(["train", *words, "name=full"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ima-yolo: ")]
    weights = Path(options["project"]) / "full" / "weights"
    assert "No space left on device" in line
    assert (f"resume model={weights / 'last.pt'}" in line) is (count > 0)
    if not count:  # no epoch was saved yet
        assert list(weights.iterdir()) == []
        return
    assert sorted(file.name for file in weights.iterdir()) == ["best.pt", "last.pt"]
    monkeypatch.undo()
    content = torch_safe_load(weights / "last.pt", safe_only=True)[0]
    assert content["epoch"] == count - 1
    trainer = IMATrainer(overrides={"resume": str(weights / "last.pt")})
    trainer.train()
    assert_same(trainer, outcome(whole))


def test_a_disk_that_is_full_at_the_end(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch says it, which writes a checkpoint's parts itself."""
    whole = IMATrainer(overrides={**options, "epochs": 1, "name": "whole"})
    whole.train()
    plain: Any = torch.save

    def save(content: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        if "best" in str(target):
            Path(target).write_bytes(b"PK")
            raise RuntimeError("[enforce fail at inline_container.cc:659] . PytorchStreamWriter failed writing file")
        plain(content, target, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    killed = IMATrainer(overrides={**options, "epochs": 1, "name": "full"})
    with pytest.raises(IMAError, match=r"full: cannot be written .* resume model=.*last\.pt"):
        killed.train()
    monkeypatch.undo()
    assert torch_safe_load(killed.best, safe_only=True)[0]["epoch"] == 0
    trainer = IMATrainer(overrides={"resume": str(killed.last)})
    trainer.train()
    assert_same(trainer, outcome(whole))


def test_other_workers_are_said_to_change_the_images(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.continuing.LOGGER.warning", said.append)
    last = stopped(options, "on_train_batch_end", 4)
    trainer = IMATrainer(overrides={"resume": str(last)})
    trainer.add_callback("on_train_start", lambda t: t._saved["order"].update(workers=3))
    trainer.train()
    assert any("another number of workers" in line for line in said)


def test_what_is_kept_for_resuming_is_gone_when_a_run_is_finished(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "epochs": 1})
    trainer.train()
    assert "exact" not in torch_safe_load(trainer.last, safe_only=True)[0]["ima"]


RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no weights": lambda record: record.pop("model"),
    "an image that is not there": lambda record: record["order"]["streams"].update(buffer=torch.tensor([10**6])),
    "another gradient": lambda record: record.update(gradients={"nowhere": torch.zeros(1)}),
    "an image before the first": lambda record: record["order"]["streams"].update(buffer=torch.tensor([-9])),
    "an order that is none": lambda record: record["order"].update(permutation=torch.zeros(3)),
    "no order": lambda record: record["order"].update(permutation=None),
    "a stream below zero": lambda record: record["order"]["streams"].update(numpy=torch.full((626,), -5)),
    "streams of no worker": lambda record: record["order"].update(queue=[{}]),
    "a step that is no number": lambda record: record.update(last_step="x"),
    "half a stream": lambda record: record["order"]["streams"].update(python=torch.tensor([3, 1])),
}


def test_a_damaged_record_costs_one_line(options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    last = stopped(options, "on_train_batch_end", 4)
    for damage in RECORDS.values():
        content = torch.load(last, weights_only=False)
        damage(content["ima"]["exact"])
        torch.save(content, last.with_name("damaged.pt"))
        assert cli.main(["train", f"resume={last.with_name('damaged.pt')}"]) == 2
        assert "ima-yolo: resume: the record for an exact resume is damaged (" in capfd.readouterr().err


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no adapters": lambda content: content["ima"]["distiller"].pop("adapters"),
    "adapters of another kind": lambda content: content["ima"]["distiller"].update(adapters=5),
    "no weight": lambda content: content["ima"]["distiller"].update(weight={}),
    "a stream that is none": lambda content: content["ima"]["distiller"].update(rng={}),
    "no digest": lambda content: content["ima"].pop("teacher_digest"),
    "another distiller": lambda content: content["ima"].update(distiller=5),
    "an optimizer without groups": lambda content: content.update(optimizer={}),
    "no count of updates": lambda content: content.pop("updates"),
}


def test_a_damaged_state_costs_one_line(options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    last = stopped(options, "on_train_batch_end", 4)
    file = last.with_name("damaged.pt")
    for damage in STATES.values():
        content = torch.load(last, weights_only=False)
        damage(content)
        torch.save(content, file)
        assert cli.main(["train", f"resume={file}"]) == 2
        assert capfd.readouterr().err.splitlines()[-1].startswith(f"ima-yolo: {file}: {DAMAGED} (")


def test_streams_go_on_where_they_were() -> None:
    random.gauss(0, 1)
    np.random.randn()  # noqa: NPY002 - as before: half of a pair, the other half is part of the state
    state = streams()

    def draw() -> list[float]:
        numpy = [np.random.randn(), np.random.rand()]  # noqa: NPY002
        return [random.gauss(0, 1), random.random(), *numpy, float(torch.rand(1))]

    first = draw()
    draw()
    set_streams(state)
    assert draw() == first


def test_the_rhythm_of_steps_goes_on() -> None:
    cadence = Cadence()
    cadence.accumulate = 4
    cadence.resume(last_step=6)
    assert cadence.asked == 4, "before the first batch the loop asks for the nominal value"
    asked = []
    for cadence.batch in range(9, 13):
        asked.append(cadence.asked)
        if cadence.asked != NOT_YET:
            cadence.stepped()
    assert asked == [NOT_YET, 4, 4, 4]
    assert cadence.last_step == 12


def test_rows_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("epoch,time,a\n1,2.5,0.1\n2,5.0,0.2\n3,7.5,0.3\n4,9")
    trim_results(file, 2)
    assert file.read_text() == "epoch,time,a\n1,2.5,0.1\n2,5.0,0.2\n"
    trim_results(tmp_path / "none.csv", 2)


def test_results_that_are_no_table_are_named(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    for text, reason in (("epoch,loss\n1," + "x" * 200_000, "field larger"), ("\udcff", "can't decode")):
        file.write_text(text, errors="surrogateescape")
        with pytest.raises(IMAError, match=rf"results\.csv: cannot be read \(.*{reason}.*\); remove it"):
            trim_results(file, 1)
    os.truncate(file, 60 * 2**30)  # sparse: it takes no room
    with pytest.raises(IMAError, match=r"results\.csv: cannot be read \(larger than 128 MiB\); remove it"):
        trim_results(file, 1)
    file.write_text("epoch,loss\n1,2\n\N{SUPERSCRIPT TWO},3\n")
    trim_results(file, 1)
    assert file.read_text() == "epoch,loss\n1,2\n"


def test_nothing_is_written_through_a_link_that_was_left(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "results.partial").symlink_to("mine.txt")
    with replacing(tmp_path / "results.csv") as partial:
        partial.write_text("theirs")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "results.csv").read_text() == "theirs"


def test_one_process_of_several_cuts_them(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All have the same file: two at it would take each other's partial one away."""
    last = stopped(options, "on_val_start", 2)
    trainer = IMATrainer(overrides={"resume": str(last)})
    rows = trainer.csv.read_text() + "2,half"
    trainer.csv.write_text(rows)
    monkeypatch.setattr("ima_yolo.continuing.RANK", 1)
    trainer.go_on_exactly(None, 1)
    assert trainer.csv.read_text() == rows
    monkeypatch.setattr("ima_yolo.continuing.RANK", 0)
    trainer.go_on_exactly(None, 1)
    assert [line.split(",")[0] for line in trainer.csv.read_text().splitlines()] == ["epoch", "1"]
