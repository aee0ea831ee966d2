"""Images without labels: they join the distillation term and leave everything else as it was."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import Mosaic
from ultralytics.nn.tasks import torch_safe_load

from ima_yolo import IMATrainer
from ima_yolo.errors import IMAError
from ima_yolo.preflight import prepare
from ima_yolo.unlabelled import UnlabelledStream

COMMON = {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "optimizer": "AdamW", "val": False}
COMMON |= {"ima_gate": False}  # or an untrained teacher, which knows nothing more, rests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    (tmp_path / "pool" / "deep").mkdir(parents=True)
    for index in range(5):
        size = (60 + 20 * index, 90, 3)
        cv2.imwrite(str(tmp_path / "pool" / "deep" / f"{index}.png"), rng.integers(0, 255, size, dtype=np.uint8))
    return tmp_path / "pool"


@pytest.fixture
def options(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively_teacher: Path, tmp_path: Path
) -> dict[str, Any]:
    paths = {
        "teacher": lively_teacher,
        "model": str(tiny_checkpoint()),
        "data": str(tiny_data),
        "project": str(tmp_path),
    }
    return {**COMMON, **paths}


def first_gradients(options: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], IMATrainer]:
    """Gradients of the supervised and of the distillation loss at the first step, and the trainer after its run."""
    trainer = IMATrainer(overrides=options)
    found: list[dict[str, torch.Tensor]] = []

    def watch(trainer: IMATrainer) -> None:
        student = trainer.model

        def loss(*args: Any) -> Any:
            del student.loss
            loss, items = student.loss(*args)
            weights = {name: value for name, value in student.named_parameters() if value.requires_grad}
            for part in (loss[:-1].sum(), loss[-1]):
                values = torch.autograd.grad(part, list(weights.values()), retain_graph=True, allow_unused=True)
                found.append({name: value for name, value in zip(weights, values, strict=True) if value is not None})
            return loss, items

        student.loss = loss

    trainer.add_callback("on_train_start", watch)
    trainer.train()
    return found[0], found[1], trainer


def test_the_supervised_gradient_is_that_without_them_and_the_other_is_not(
    options: dict[str, Any], folder: Path
) -> None:
    task, term, _ = first_gradients({**options, "name": "without"})
    task_with, term_with, trainer = first_gradients({**options, "name": "with", "ima_unlabelled": str(folder)})
    assert task.keys() == task_with.keys()
    assert all(torch.equal(task[name], task_with[name]) for name in task)
    changed = [name for name in term if not torch.allclose(term[name], term_with[name])]
    assert "model.0.conv.weight" in changed
    assert trainer._unlabelled is not None


@pytest.mark.parametrize("term", ["ima_cls", "ima_box"])
def test_they_enter_a_term_on_the_heads_alone_too(options: dict[str, Any], folder: Path, term: str) -> None:
    alone = {"ima_weight": 0, "ima_cls": 0, "ima_box": 0, "ima_gate": False, term: 1}
    task, without, _ = first_gradients({**options, **alone, "name": "without"})
    task_with, with_them, trainer = first_gradients({**options, **alone, "name": "with", "ima_unlabelled": str(folder)})
    assert all(torch.equal(task[name], task_with[name]) for name in task)
    assert not torch.allclose(without["model.0.conv.weight"], with_them["model.0.conv.weight"])
    assert trainer._unlabelled is not None


def test_a_term_is_the_mean_over_labelled_images_and_others(options: dict[str, Any], folder: Path) -> None:
    chosen = {"ima_gate": False, "ima_unlabelled": str(folder), "ima_unlabelled_ratio": 0.5}
    trainer = IMATrainer(overrides={**options, **chosen})
    terms: list[dict[str, torch.Tensor]] = []

    def watch(trainer: IMATrainer) -> None:
        compare = trainer.distiller._compare
        mixed = trainer.distiller._mixed
        trainer.distiller._compare = lambda *args: terms.append(compare(*args)) or terms[-1]
        trainer.distiller._mixed = lambda *args: terms.append(mixed(*args)) or terms[-1]

    trainer.add_callback("on_train_start", watch)
    trainer.train()
    own, others, mean = terms[:3]
    assert set(own) == {"ima_loss", "kdcls_loss", "kdbox_loss"}
    for name in own:
        assert float(mean[name]) == pytest.approx((4 * float(own[name]) + 2 * float(others[name])) / 6, rel=1e-5)
        assert float(own[name]) != float(others[name])


def test_without_weight_every_weight_is_that_without_them(options: dict[str, Any], folder: Path) -> None:
    states = []
    for name, more in (("without", {}), ("with", {"ima_unlabelled": str(folder), "ima_weight": 1e-30})):
        trainer = IMATrainer(overrides={**options, "ima_weight": 0, "ima_cls": 0, "ima_box": 0, "name": name, **more})
        trainer.train()
        states.append(torch_safe_load(trainer.last, safe_only=True)[0]["model"].state_dict())
    statistics = [name for name in states[0] if "running" in name or "num_batches" in name]
    assert statistics
    for name, value in states[0].items():
        assert torch.allclose(value.float(), states[1][name].float(), atol=1e-6), name


def test_the_teacher_sees_as_many_as_asked_for(options: dict[str, Any], folder: Path, monkeypatch) -> None:
    from ima_yolo.teachers.yolo import YOLOTeacher

    seen: list[int] = []
    original = YOLOTeacher.__call__
    trainer = IMATrainer(overrides={**options, "ima_unlabelled": str(folder), "ima_unlabelled_ratio": 0.5})
    monkeypatch.setattr(
        YOLOTeacher, "__call__", lambda self, x, *a, **k: (seen.append(len(x)), original(self, x, *a, **k))[1]
    )
    trainer.train()
    assert set(zip(seen[::2], seen[1::2], strict=True)) <= {(4, 2), (4, 1)}, "2 for each 4; the last of 5 alone"
    with trainer.csv.open() as file:
        assert float(next(csv.DictReader(file))["train/ima_loss"]) > 0


def test_a_stream_has_no_end_and_leaves_the_global_randomness_and_the_folder_alone(folder: Path) -> None:
    args = get_cfg(overrides={"imgsz": 64, "workers": 0})
    before = sorted(folder.rglob("*"))
    random.seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    random.seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    stream, again = (UnlabelledStream(str(folder), args, {"channels": 3}, 2, seed=0) for _ in range(2))
    first = [stream.next() for _ in range(7)]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert expected[0] == random.random()
    assert [tuple(images.shape) for images in first[:3]] == [(2, 3, 64, 64), (2, 3, 64, 64), (1, 3, 64, 64)]
    assert not torch.equal(first[0], first[3])
    assert all(torch.equal(images, again.next()) for images in first), "the seed decides"
    assert sorted(folder.rglob("*")) == before


def test_a_folder_without_images_or_objects_without_labels_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(IMAError, match=r"ima_unlabelled=.*empty: no images in this folder"):
        prepare({**options, "ima_unlabelled": str(tmp_path / "empty")})
    with pytest.raises(IMAError, match="images without labels have no boxes; use ima_boxes=teacher"):
        prepare({**options, "ima_unlabelled": str(Path(options["data"]).parent), "ima_instance": "box"})


@pytest.mark.parametrize(("workers", "seen"), [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (0, 4)])
def test_without_mosaic_an_image_is_one_image(folder: Path, workers: int, seen: int) -> None:
    """Wherever in a pass it is closed."""
    for index, file in enumerate(sorted(folder.rglob("*.png"))):
        cv2.imwrite(str(file), np.full((64, 64, 3), 20 + 40 * index, np.uint8))
    alone = {"scale": 0, "translate": 0, "fliplr": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0}
    args = get_cfg(overrides={"imgsz": 64, "workers": workers, "mosaic": 1.0, **alone})
    stream = UnlabelledStream(str(folder), args, {"channels": 3}, 2, seed=0)

    def kinds() -> list[int]:
        return [len(image[0].unique()) for image in stream.next()]

    before = [kind for _ in range(seen) for kind in kinds()]
    assert max(before) > 1 or seen < 3
    stream.close_mosaic()
    assert {kind for _ in range(4) for kind in kinds()} == {1}


def test_the_last_epochs_close_it_for_both(options: dict[str, Any], folder: Path) -> None:
    closed: list[int] = []
    trainer = IMATrainer(
        overrides={**options, "epochs": 2, "close_mosaic": 1, "mosaic": 1.0, "ima_unlabelled": str(folder)}
    )
    original = UnlabelledStream.close_mosaic

    def close(stream: UnlabelledStream) -> None:
        closed.append(trainer.epoch)
        original(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnlabelledStream, "close_mosaic", close)
        trainer.train()
    assert closed == [1]
    late = IMATrainer(
        overrides={**options, "close_mosaic": 5, "mosaic": 1.0, "ima_unlabelled": str(folder), "name": "late"}
    )
    late.train()
    assert late._unlabelled is not None
    first, *_ = late._unlabelled._loader.dataset.transforms.transforms[0].transforms
    assert isinstance(first, Mosaic)
    assert first.p == 0.0, "closed before the first image is read"


def test_images_that_cannot_be_read_are_left_out_with_a_line(
    options: dict[str, Any], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "z.jpg"):  # before the others and after them
        (folder / name).write_bytes(b"no image")
    stream = UnlabelledStream(str(folder), get_cfg(overrides={"imgsz": 64, "workers": 0}), {"channels": 3}, 7, seed=0)
    for _ in range(3):
        assert stream.next().shape == (7, 3, 64, 64)
    assert caplog.text.count("cannot be read and is left out") == 2
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(IMAError, match=r"none of its 7 images can be read"):
        prepare({**options, "ima_unlabelled": str(folder)})


def test_without_labels_an_image_of_a_semantic_task_is_one_instance_and_that_is_said(
    options: dict[str, Any], folder: Path, task_data: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    chosen = {**options, "model": "yolo26n-sem.yaml", "data": str(task_data("semantic")), "fraction": 0.5}
    trainer = IMATrainer(overrides={**chosen, "ima_unlabelled": str(folder)})
    trainer.train()
    assert "The classes of images without labels are not known: each of them counts as one instance" in caplog.text
    with trainer.csv.open() as file:
        assert float(next(csv.DictReader(file))["train/ima_loss"]) > 0
