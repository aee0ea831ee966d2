"""A training touches neither another one in its process nor the caller's model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.callbacks.base import default_callbacks

from ima_yolo import IMATrainer
from ima_yolo.checkpoint import carrying


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1)),
        "data": str(tiny_data),
        "epochs": 1,
        "imgsz": 64,
        "batch": 4,
        "nbs": 4,
        "optimizer": "AdamW",
        "plots": False,
        "device": "cpu",
        "project": str(tmp_path / "runs"),
        "ima_gate": False,  # or an untrained teacher, which knows nothing more, rests
    }


def weights(trainer: IMATrainer) -> dict[str, torch.Tensor]:
    model = trainer.ema.ema
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained(options: dict[str, Any], **more: Any) -> IMATrainer:
    trainer = IMATrainer(overrides={**options, **more})
    trainer.train()
    return trainer


def test_a_training_after_another_is_what_it_is_alone(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path]
) -> None:
    """Nothing of the first, which differs in every way, is left in the process."""
    student = str(tiny_checkpoint())
    alone = weights(trained(options, model=student, name="alone"))
    save, plain = torch.save, dict(DEFAULT_CFG_DICT)
    callbacks = {event: list(kept) for event, kept in default_callbacks.items()}
    broken = IMATrainer(overrides={**options, "model": student, "name": "broken", "ima_loss": "cwd", "ima_cls": 1})
    broken.add_callback("on_train_batch_end", lambda trainer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.train()
    trained(options, model="yolov8n.yaml", name="other", ima_mask="frequency", ima_weight=3, optimizer="SGD", seed=5)
    again = weights(trained(options, model=student, name="again"))
    assert all(torch.equal(alone[name], again[name]) for name in alone)
    assert torch.save is save
    assert plain == DEFAULT_CFG_DICT
    assert callbacks == {event: list(kept) for event, kept in default_callbacks.items()}


def test_a_trainer_that_waits_is_not_touched_by_one_that_trains(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path]
) -> None:
    """Two trainers at a time: one is stopped in the middle of its epoch, while the other trains from start to end."""
    student = str(tiny_checkpoint())
    seen: dict[str, Any] = {}

    def between(first: IMATrainer) -> None:
        if "second" in seen:
            return
        before = {name: value.clone() for name, value in first.model.named_parameters()}
        digest = [teacher.digest() for teacher in first.teachers]
        adapters = first.distiller.state()["adapters"]
        seen["second"] = trained(options, model=student, name="second", ima_loss="l2", ima_weight=5)
        assert all(torch.equal(value, before[name]) for name, value in first.model.named_parameters())
        assert [teacher.digest() for teacher in first.teachers] == digest
        kept = first.distiller.state()["adapters"]
        assert all(torch.equal(kept[name], adapters[name]) for name in adapters)
        assert first.settings.ima_loss == "ima"

    first = IMATrainer(overrides={**options, "model": student, "name": "first"})
    first.add_callback("on_train_batch_end", between)
    first.train()
    assert type(first.model) is type(seen["second"].model) is DetectionModel
    assert first.save_dir != seen["second"].save_dir
    assert first.model is not seen["second"].model


def test_what_two_threads_save_carries_what_is_their_own(tmp_path: Path) -> None:
    """The second begins to save before the first has ended, and ends after it."""
    plain, begun, ended = torch.save, threading.Event(), threading.Event()
    content = {"train_args": {}}

    def first() -> None:
        with carrying({"who": "first"}):
            begun.wait(20)
            torch.save(content, tmp_path / "first.pt")
        ended.set()

    def second() -> None:
        with carrying({"who": "second"}):
            begun.set()
            ended.wait(20)
            torch.save(content, tmp_path / "second.pt")

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    torch.save(content, tmp_path / "none.pt")
    for thread in threads:
        thread.join(20)
    torch.save(content, tmp_path / "after.pt")
    found = {file.stem: torch.load(file, weights_only=True).get("ima") for file in tmp_path.glob("*.pt")}
    assert found == {"first": {"who": "first"}, "second": {"who": "second"}, "none": None, "after": None}
    assert torch.save is plain


def test_the_caller_s_model_is_as_it_was_while_and_after_it_trains(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path]
) -> None:
    """Ultralytics itself puts the best checkpoint into `YOLO.model` at the end; the object that was there stays."""
    yolo = YOLO(tiny_checkpoint())
    held: Any = yolo.model
    before = {name: value.clone() for name, value in held.state_dict().items()}
    attributes, training = set(vars(held)), held.training
    threads = threading.active_count()
    yolo.train(trainer=IMATrainer, **options)
    assert type(held) is DetectionModel
    assert set(vars(held)) - {"criterion"} <= attributes
    assert held.training is training
    assert not hasattr(held, "ima")
    after = held.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert type(yolo.model) is DetectionModel
    assert not hasattr(yolo.model, "ima")
    assert threading.active_count() <= threads + 12, "OpenCV's and Ultralytics' pools of threads, which are kept"
    for model in (held, yolo.model):
        for module in model.modules():
            assert isinstance(module, nn.Module)
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
    result = yolo.predict(torch.zeros(1, 3, 64, 64), verbose=False)
    assert len(result) == 1
