"""Training with a teacher: equal to plain training without its weight, plain on disk, and resumable."""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from ima_yolo import IMATrainer
from ima_yolo.errors import IMAError
from ima_yolo.export.onnx import export_onnx
from ima_yolo.teachers.yolo import YOLOTeacher

COMMON = {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "optimizer": "AdamW", "lr0": 0.002}
COMMON |= {"ima_gate": False}  # or an untrained teacher, which knows nothing more, rests


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    student, teacher = tiny_checkpoint(seed=0), tiny_checkpoint("yolo26s-few.yaml", seed=1)
    return {**COMMON, "teacher": teacher, "model": str(student), "data": str(tiny_data), "project": str(tmp_path)}


def plain(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "teacher" and not key.startswith("ima_")}


def rows(trainer: DetectionTrainer) -> list[dict[str, str]]:
    with trainer.csv.open() as file:
        return list(csv.DictReader(file))


def record_gradients(trainer: DetectionTrainer) -> list[dict[str, torch.Tensor]]:
    """Keep the student's gradients of every step, as they enter the optimizer."""
    steps: list[dict[str, torch.Tensor]] = []

    def keep(trainer: DetectionTrainer) -> None:
        named = trainer.model.named_parameters()
        steps.append({name: p.grad.clone() for name, p in named if p.grad is not None and not name.startswith("ima.")})

    original = trainer.optimizer_step

    def step() -> None:
        keep(trainer)
        original()

    trainer.optimizer_step = step
    return steps


def trained(
    cls: type[DetectionTrainer], options: dict[str, Any]
) -> tuple[DetectionTrainer, list[dict[str, torch.Tensor]]]:
    trainer = cls(overrides=dict(options))
    steps = record_gradients(trainer)
    trainer.train()
    return trainer, steps


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch_safe_load(path, safe_only=True)[0]["model"].state_dict()


@pytest.mark.parametrize("student", ["yolo26n.yaml", "yolo26n-few.yaml"])
def test_without_weight_every_gradient_and_weight_is_that_of_plain_training(
    student: str, options: dict[str, Any], tiny_checkpoint: Callable[..., Path]
) -> None:
    options = {**options, "model": str(tiny_checkpoint(student))}
    reference, expected = trained(DetectionTrainer, {**plain(options), "name": "plain"})
    trainer, found = trained(IMATrainer, {**options, "ima_weight": 0, "name": "ima"})
    assert len(found) == len(expected) > 0
    for step, other in zip(found, expected, strict=True):
        assert step.keys() == other.keys()
        assert all(torch.equal(step[name], other[name]) for name in step)
    final = state(trainer.last)
    for name, value in state(reference.last).items():
        assert torch.equal(value, final[name]), name


def test_with_weight_the_first_step_sees_the_same_data_and_another_gradient(options: dict[str, Any]) -> None:
    _, expected = trained(DetectionTrainer, {**plain(options), "name": "plain"})
    trainer, found = trained(IMATrainer, {**options, "ima_cls": 0, "ima_box": 0, "name": "ima"})
    neck, head = "model.7.conv.weight", "model.8.cv3.0.2.weight"
    assert torch.allclose(found[0][head], expected[0][head], atol=1e-6), (
        "the head is not distilled: same data, same gradient"
    )
    assert not torch.allclose(found[0][neck], expected[0][neck], atol=1e-6)
    assert trainer.distiller is not None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ima_mask": "frequency", "ima_deflation": "shifted"},
        {"ima_instance": "box", "ima_schedule": "linear"},
        {"ima_instance": "box", "ima_boxes": "teacher", "ima_teacher_conf": 0.001},
        {"ima_objects": "gt", "ima_background": 0.1},
        {"ima_objects": "teacher", "ima_standardize": "student", "ima_deflation": "cosine"},
        {"ima_generator": "light", "ima_cls": 1, "ima_box": 1},
        {"ima_batch_share": 0.5, "ima_objects": "teacher"},
        {"ima_every": 2},
        {"ima_loss": "l2"},
        {"ima_loss": "mgd"},
        {"ima_loss": "cwd"},
        {"ima_loss": "pkd", "ima_levels": "16,32", "ima_weight": 3},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()) or "default",
)
def test_every_reading_trains_its_adapters_and_leaves_the_teacher_alone(
    options: dict[str, Any], settings: dict[str, Any]
) -> None:
    trainer = IMATrainer(overrides={**options, **settings})
    before: dict[str, torch.Tensor] = {}
    digest = trainer.teachers[0].digest()
    trainer.add_callback(
        "on_train_start", lambda t: before.update({k: v.clone() for k, v in t.distiller.criterion.named_parameters()})
    )
    trainer.train()
    assert trainer.teachers[0].digest() == digest == YOLOTeacher(options["teacher"]).digest()
    after = dict(trainer.distiller.criterion.named_parameters())
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    trained = ("adapter.weight", "restore.0.weight", "restore.2.weight", "generator.0.weight", "generator.2.weight")
    assert {name for name in after if name.endswith(trained)} <= set(moved)
    (row,) = rows(trainer)
    assert float(row["train/ima_loss"]) > 0
    assert float(row["ima/weight"]) > 0
    if "ima_levels" in settings:
        assert trainer.distiller.criterion.strides == (16, 32)


def test_terms_on_the_heads_need_no_features(options: dict[str, Any], tmp_path: Path) -> None:
    teacher = YOLO(options["teacher"])
    for level in teacher.model.model[-1].cv3:
        level[-1].bias.data.fill_(1.0)  # an untrained head is sure of nothing, and teaches nothing
    teacher.save(tmp_path / "sure.pt")
    settings = {"teacher": tmp_path / "sure.pt", "ima_weight": 0, "ima_cls": 1, "ima_box": 1, "ima_gate": False}
    trainer = IMATrainer(overrides={**options, **settings})
    trainer.train()
    (row,) = rows(trainer)
    assert float(row["train/kdcls_loss"]) > 0
    assert float(row["train/kdbox_loss"]) > 0
    assert float(row["train/ima_loss"]) == 0


def test_terms_on_the_heads_match_classes_by_name(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path]
) -> None:
    reordered = tiny_checkpoint("yolo26s-few.yaml", names=("square", "cone", "disc"))
    trainer = IMATrainer(overrides={**options, "teacher": reordered, "ima_cls": 1})
    trainer.train()
    assert (trainer.distiller.heads[0]._student, trainer.distiller.heads[0]._teacher) == ([0, 1], [2, 0])
    stranger = tiny_checkpoint("yolo26s-few.yaml", names=("cat", "dog"))
    with pytest.raises(IMAError, match="knows none of the data's classes"):
        IMATrainer(overrides={**options, "teacher": stranger, "ima_cls": 1, "name": "stranger"}).train()


def test_the_term_falls_on_a_fixed_batch(options: dict[str, Any], lively_teacher: Path) -> None:
    options = {**options, "teacher": lively_teacher}
    still = {"mosaic": 0, "fliplr": 0, "scale": 0, "translate": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0}
    trainer = IMATrainer(
        overrides={**options, **still, "ima_weight": 1, "epochs": 20, "val": False, "warmup_epochs": 0, "nbs": 4}
    )
    trainer.train()
    terms = [float(row["train/ima_loss"]) for row in rows(trainer)]
    assert terms[-1] < 0.8 * terms[0], terms


def test_distillation_goes_off_at_the_end_and_the_teacher_rests(options: dict[str, Any], monkeypatch) -> None:
    calls: list[int] = []
    trainer = IMATrainer(overrides={**options, "epochs": 4, "ima_off": 0.5, "ima_schedule": "linear"})
    original = type(trainer.teachers[0]).__call__
    monkeypatch.setattr(
        type(trainer.teachers[0]), "__call__", lambda *a, **k: (calls.append(trainer.epoch), original(*a, **k))[1]
    )
    trainer.train()
    assert set(calls) == {0, 1}, "neither in the last epochs nor in validation"
    terms = [float(row["train/ima_loss"]) for row in rows(trainer)]
    weights = [float(row["ima/weight"]) for row in rows(trainer)]
    assert min(terms[:2]) > 0
    assert terms[2:] == weights[2:] == [0.0, 0.0]


FRESH = """
import sys
sys.modules["ima_yolo"] = None  # any import of the package fails
from ultralytics import YOLO
model = YOLO(sys.argv[1])
assert type(model.model).__name__ == "DetectionModel" and type(model.model).__module__ == "ultralytics.nn.tasks"
model.predict(sys.argv[2], imgsz=64, verbose=False, save=False)
print("loaded")
"""


@pytest.mark.parametrize("resumable", [False, True])
def test_checkpoints_load_in_a_fresh_process_without_us(
    options: dict[str, Any], tmp_path: Path, resumable: bool
) -> None:
    """Finished ones, and those that a run in progress has written."""
    trainer = IMATrainer(overrides={**options, "epochs": 2, "save_period": 1})
    kept: list[Path] = []

    def keep(trainer: DetectionTrainer) -> None:
        for name in ("last.pt", "best.pt"):
            copy = tmp_path / f"{trainer.epoch}-{name}"
            copy.write_bytes((trainer.wdir / name).read_bytes())
            kept.append(copy)

    trainer.add_callback("on_model_save", keep)
    trainer.train()
    files = kept[:2] if resumable else [trainer.last, trainer.best, trainer.wdir / "epoch0.pt"]
    image = next((Path(trainer.data["val"])).glob("*.png"))
    for file in files:
        environment = {"ULTRALYTICS_SAFE_LOAD": "1"}
        words = [sys.executable, "-c", FRESH, str(file), str(image)]
        done = subprocess.run(
            words, capture_output=True, text=True, env={**dict(__import__("os").environ), **environment}
        )
        assert done.stdout.strip().endswith("loaded"), done.stderr


def test_a_checkpoint_of_an_epoch_is_kept_without_the_bulk_of_an_exact_resume(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "epochs": 2, "save_period": 1, "name": "kept"})
    sizes: list[int] = []
    trainer.add_callback("on_model_save", lambda t: sizes.append(t.last.stat().st_size))
    trainer.train()
    kept = trainer.wdir / "epoch0.pt"
    assert "exact" not in torch_safe_load(kept, safe_only=True)[0]["ima"]
    assert kept.stat().st_size < 0.7 * sizes[0]


def test_a_finished_checkpoint_is_as_small_as_a_plain_one(options: dict[str, Any]) -> None:
    reference, _ = trained(DetectionTrainer, {**plain(options), "name": "plain"})
    trainer, _ = trained(IMATrainer, {**options, "name": "ima"})
    assert trainer.best.stat().st_size < reference.best.stat().st_size + 10_000
    saved = torch_safe_load(trainer.best, safe_only=True)[0]
    assert saved["ima"]["settings"]["ima_loss"] == "ima"
    assert "distiller" not in saved["ima"]
    assert not any("teacher_model" in key or key.startswith("ima.") for key in saved["model"].state_dict())


def held(graph: onnx.GraphProto) -> dict[str, Any]:
    """Shape and type of each weight by name. Equal weights are stored once, so how many there are is chance."""
    return {weight.name: (tuple(weight.dims), weight.data_type) for weight in graph.initializer}


@pytest.mark.parametrize("student", ["yolo26n.yaml", "yolo26n-few.yaml"])
def test_distillation_leaves_no_trace_in_the_exported_graph(
    student: str, options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    options = {**options, "model": str(tiny_checkpoint(student))}
    reference, _ = trained(DetectionTrainer, {**plain(options), "name": "plain"})
    trainer, _ = trained(IMATrainer, {**options, "name": "ima"})
    files = [
        export_onnx(best, output=tmp_path / f"{index}.onnx", imgsz=64).path
        for index, best in enumerate((reference.best, trainer.best))
    ]
    graphs = [onnx.load(file).graph for file in files]
    first, second = (
        (
            [(node.op_type, [held(graph).get(name) for name in node.input]) for node in graph.node],
            [str(value.type) for value in (*graph.input, *graph.output)],
        )
        for graph in graphs
    )
    assert first == second
    assert abs(files[0].stat().st_size - files[1].stat().st_size) < 1000, "metadata holds paths and a date"


def test_a_term_that_cannot_teach_is_reported_while_training(options: dict[str, Any], monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.distill.LOGGER.warning", said.append)
    nothing_found = {"ima_instance": "box", "ima_boxes": "teacher", "ima_teacher_conf": 0.99}
    trainer = IMATrainer(overrides={**options, **nothing_found, "epochs": 11, "val": False})
    trainer.train()
    assert sum("ima_loss was zero in every one of 20 steps" in line for line in said) == 1


def test_settings_are_recorded_beside_the_run_and_kept_out_of_ultralytics_own(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "ima_loss": "cwd"})
    record = yaml.safe_load((trainer.save_dir / "ima.yaml").read_text())
    assert record["ima_loss"] == "cwd"
    assert record["teacher_digest"] == trainer.teachers[0].digest()
    assert not any(key.startswith("ima") or key == "teacher" for key in vars(trainer.args))


@pytest.mark.parametrize("interface", ["trainer", "yolo"])
def test_the_student_is_a_plain_model_again_after_training(options: dict[str, Any], interface: str) -> None:
    if interface == "yolo":
        yolo = YOLO(options["model"])
        mine = {key: value for key, value in options.items() if key != "model"}
        yolo.train(trainer=IMATrainer, **mine)
        model, trainer = yolo.model, yolo.trainer
    else:
        trainer = IMATrainer(overrides=options)
        trainer.train()
        model = trainer.model
    assert type(trainer.model) is type(model) is DetectionModel
    assert not hasattr(trainer.model, "ima")


def test_the_student_is_plain_again_after_a_failure(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides=options)

    def fail(_: DetectionTrainer) -> None:
        raise KeyError("stop here")

    trainer.add_callback("on_train_batch_end", fail)
    with pytest.raises(KeyError):
        trainer.train()
    assert type(trainer.model) is DetectionModel


def test_the_teacher_is_nowhere_in_the_student_and_the_adapters_are_in_the_optimizer(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "ima_objects": "teacher"})
    found: dict[str, set[int]] = {}

    def look(trainer: IMATrainer) -> None:
        found["student"] = {id(value) for value in (*trainer.model.parameters(), *trainer.model.buffers())}
        found["optimizer"] = {id(value) for group in trainer.optimizer.param_groups for value in group["params"]}

    trainer.add_callback("on_train_start", look)
    trainer.train()
    teacher = {id(value) for value in trainer.teachers[0]._model.state_dict(keep_vars=True).values()}
    adapters = {id(value) for value in trainer.distiller.criterion.parameters()}
    assert adapters <= found["optimizer"] <= found["student"]
    assert not teacher & found["student"]


def test_a_running_checkpoint_holds_nothing_of_the_teacher(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "epochs": 2, "save_period": 1})
    running: list[dict[str, Any]] = []
    names = ("last.pt", "best.pt", "epoch0.pt")
    trainer.add_callback(
        "on_model_save",
        lambda t: running.extend(torch.load(t.wdir / name, weights_only=False, map_location="cpu") for name in names),
    )
    trainer.train()
    teacher = contents(trainer.teachers[0]._model)
    assert len(teacher) > 10
    for saved in running:
        held = contents(saved)
        assert held, "there is something to look through"
        assert not held & teacher


def contents(value: Any) -> set[bytes]:
    """What the tensors hold, in half precision; those that are constant in it say nothing, such as tiny moments."""
    halves = (tensor.cpu().half() for tensor in tensors_in(value))
    return {tensor.numpy().tobytes() for tensor in halves if len(tensor.unique()) > 8}


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a checkpoint, those of its modules too."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        yield value.detach()
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)


def test_the_schedule_reaches_the_training(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "epochs": 4, "ima_weight": 8, "ima_schedule": "cosine", "val": False})
    trainer.train()
    weights = [float(row["ima/weight"]) for row in rows(trainer)]
    assert weights == pytest.approx([8, 4 + 4 * 2**-0.5, 4, 4 - 4 * 2**-0.5], abs=1e-4)


def test_keys_of_ours_in_a_file_for_yolo_train(options: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"ima_loss": "pkd", "teacher": str(options["teacher"]), "imgsz": 64}))
    mine = {key: value for key, value in options.items() if key not in {"model", "teacher", "imgsz"}}
    yolo = YOLO(options["model"])
    yolo.train(trainer=IMATrainer, cfg=str(recipe), **mine)
    assert yolo.trainer.settings.ima_loss == "pkd"


def test_a_base_configuration_may_hold_everything(options: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "all.yaml"
    recipe.write_text(yaml.safe_dump({**options, "teacher": str(options["teacher"])}))
    trainer = IMATrainer(cfg=recipe)
    assert trainer.args.imgsz == 64
    assert trainer.settings.teacher == str(options["teacher"])


def test_a_nan_is_recovered_from_with_the_adapters(options: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, "epochs": 3})
    poisoned: list[int] = []

    def poison(trainer: IMATrainer) -> None:
        if trainer.epoch == 1 and not poisoned:
            poisoned.append(1)
            with torch.no_grad():
                for value in trainer.distiller.criterion.parameters():
                    value.fill_(float("nan"))

    drawn: list[int] = []

    def note(trainer: IMATrainer) -> None:
        if trainer.epoch == 1:
            drawn.append(hash(random.getstate()))  # what Ultralytics augments from

    trainer.add_callback("on_train_batch_start", poison)
    trainer.add_callback("on_train_batch_start", note)
    trainer.train()
    assert poisoned
    half = len(drawn) // 2
    assert drawn[:half] != drawn[half:], "the same random streams would lead to the same NaN"
    assert all(value.isfinite().all() for value in trainer.distiller.criterion.parameters())
    assert [row["epoch"] for row in rows(trainer)][-1] == "3"


def test_a_teacher_with_a_coarser_level_takes_any_image_size(options: dict[str, Any], tiny_checkpoint) -> None:
    trainer = IMATrainer(overrides={**options, "teacher": tiny_checkpoint("yolov8n-p6.yaml"), "imgsz": 96})
    trainer.train()
    assert trainer.distiller.criterion.strides == (8, 16, 32)


@pytest.mark.parametrize(
    "extra",
    [
        {"freeze": 5},
        {"freeze": 8},
        {"val": False, "epochs": 2},
        {"save": False},
        {"time": 0.001},
        {"multi_scale": 0.5},
        {"close_mosaic": 1, "epochs": 2},
        {"patience": 1, "epochs": 3},
        {"optimizer": "MuSGD", "lr0": 0.01},
        {"single_cls": True},
        {"rect": True},
        {"cos_lr": True, "nbs": 4},
        {"cls_pw": 0.5},
        {"imgsz": [64, 96]},
    ],
    ids=str,
)
def test_keys_of_ultralytics_work_unchanged(options: dict[str, Any], extra: dict[str, Any]) -> None:
    trainer = IMATrainer(overrides={**options, **extra})
    trainer.train()
    assert trainer.last.exists()
    if extra.get("freeze") != 8:  # an untrained neck whose statistics are frozen gives constant maps
        assert float(rows(trainer)[0]["train/ima_loss"]) > 0
    if "freeze" in extra:
        before, after = state(Path(options["model"])), state(trainer.last)
        assert torch.equal(before["model.4.conv.weight"].half(), after["model.4.conv.weight"].half())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ima_mask": "frequency", "ima_instance": "box", "ima_cls": 1, "ima_box": 1},
        *({"ima_loss": name} for name in ("l2", "mgd", "cwd", "pkd")),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
def test_in_half_precision_the_terms_are_those_of_single_precision(
    options: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics has mixed precision on CUDA alone; its own context is replaced by the processor's."""
    options = {**options, "ima_weight": 1, **settings}
    single = IMATrainer(overrides={**options, "name": "single"})
    single.train()
    seen: list[torch.dtype] = []
    monkeypatch.setattr(
        "ultralytics.engine.trainer.autocast", lambda *_, **__: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    half = IMATrainer(overrides={**options, "name": "half"})
    half.add_callback("on_train_start", lambda t: t.model.model[-2].register_forward_hook(_note_dtype(seen)))
    half.train()
    assert torch.bfloat16 in seen, "the student was not in half precision"
    for name in (name for name in rows(single)[0] if name.startswith(("train/ima", "train/kd"))):
        assert float(rows(half)[0][name]) == pytest.approx(float(rows(single)[0][name]), rel=0.1)


def _note_dtype(seen: list[torch.dtype]) -> Callable[..., None]:
    return lambda module, args, output: seen.append(output.dtype)


def test_callbacks_are_called_as_ultralytics_calls_them(options: dict[str, Any]) -> None:
    calls: dict[type, list[str]] = {DetectionTrainer: [], IMATrainer: []}
    events = ("on_train_start", "on_train_epoch_end", "on_fit_epoch_end", "on_model_save", "on_train_end")
    for cls, given in ((DetectionTrainer, plain(options)), (IMATrainer, options)):
        trainer = cls(overrides=dict(given))
        for event in events:
            trainer.add_callback(event, lambda _, cls=cls, event=event: calls[cls].append(event))
        trainer.train()
    assert calls[IMATrainer] == calls[DetectionTrainer]
    assert set(calls[IMATrainer]) == set(events)


def test_a_logger_is_handed_the_terms(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's integration writes what a trainer calls its losses; here into a writer of our own."""
    from ultralytics.utils.callbacks import tensorboard

    written: dict[str, float] = {}

    class Writer:
        def add_scalar(self, name: str, value: Any, step: int) -> None:
            written[name] = float(value)

        def add_graph(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(tensorboard, "WRITER", Writer(), raising=False)  # there only where a user has switched it on
    trainer = IMATrainer(overrides=options)
    trainer.add_callback("on_train_epoch_end", tensorboard.on_train_epoch_end)
    trainer.add_callback("on_fit_epoch_end", tensorboard.on_fit_epoch_end)
    trainer.train()
    assert written["train/ima_loss"] > 0


@pytest.mark.parametrize("student", ["yolov8n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolov8n-p2.yaml"])
def test_students_of_other_families_learn_are_saved_plain_and_export(options: dict[str, Any], student: str) -> None:
    trainer, steps = trained(IMATrainer, {**options, "model": student, "fraction": 0.5, "val": False})  # a single batch
    assert trainer.distiller.criterion.strides == (8, 16, 32)
    assert len(steps) == 1
    assert all(gradient.isfinite().all() for gradient in steps[0].values())
    assert float(rows(trainer)[0]["train/ima_loss"]) > 0
    saved = torch_safe_load(trainer.best, safe_only=True)[0]["model"]
    assert type(saved) is DetectionModel
    assert saved.state_dict().keys() == DetectionModel(student, nc=3, verbose=False).state_dict().keys()
    report = export_onnx(trainer.best, imgsz=64)  # in place only if it agrees with torch
    assert report.path.exists()
    assert report.images > 0


class Stop(Exception):
    """Ends a run between two epochs."""


def interrupted(options: dict[str, Any], epoch: int) -> IMATrainer:
    trainer = IMATrainer(overrides=options)

    def stop(trainer: DetectionTrainer) -> None:
        if trainer.epoch == epoch:
            raise Stop

    trainer.add_callback("on_model_save", stop)
    with pytest.raises(Stop):
        trainer.train()
    return trainer


@pytest.mark.parametrize("spelling", ["trainer", "yolo", "path"])
def test_resume_restores_adapters_weight_schedule_and_settings(options: dict[str, Any], spelling: str) -> None:
    first = interrupted({**options, "epochs": 3, "ima_deflation": "floor", "ima_schedule": "cosine"}, epoch=1)
    saved = first.distiller.state()
    last = str(first.last)
    restored: dict[str, Any] = {}

    def keep(trainer: DetectionTrainer) -> None:
        restored.update(trainer.distiller.state(), epoch=trainer.start_epoch)

    if spelling == "yolo":
        yolo = YOLO(last)
        yolo.add_callback("on_train_start", keep)
        yolo.train(trainer=IMATrainer, resume=True)
        trainer = yolo.trainer
    else:
        overrides = {"resume": last} if spelling == "path" else {"resume": True, "model": last}
        trainer = IMATrainer(overrides=overrides)
        trainer.add_callback("on_train_start", keep)
        trainer.train()
    assert restored["epoch"] == 2
    assert restored["weight"] == saved["weight"]
    assert torch.equal(restored["rng"], saved["rng"])
    assert all(torch.equal(value, saved["adapters"][name]) for name, value in restored["adapters"].items())
    assert trainer.settings == first.settings
    assert [row["epoch"] for row in rows(trainer)] == ["1", "2", "3"]
    assert trainer.save_dir == first.save_dir


def test_resume_takes_a_teacher_that_has_moved_and_says_if_it_is_another(options, tiny_checkpoint, monkeypatch) -> None:
    first = interrupted({**options, "epochs": 2}, epoch=0)
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.trainer.LOGGER.warning", said.append)
    moved = IMATrainer(overrides={"resume": str(first.last), "teacher": tiny_checkpoint("yolo26s-few.yaml", seed=2)})
    moved.train()
    assert any("not those that this run was started with" in line for line in said)


def test_resume_with_a_teacher_of_other_widths_is_one_line(options: dict[str, Any], tiny_checkpoint) -> None:
    first = interrupted({**options, "epochs": 2}, epoch=0)
    other = IMATrainer(overrides={"resume": str(first.last), "teacher": tiny_checkpoint(seed=2)})
    with pytest.raises(IMAError, match="adapters do not fit"):
        other.train()
    assert first.last.exists()


def test_a_run_that_was_moved_goes_on_where_it_lies(options: dict[str, Any], tmp_path: Path) -> None:
    first = interrupted({**options, "epochs": 2}, epoch=0)
    moved = tmp_path / "elsewhere" / "run"
    shutil.move(first.save_dir, moved)
    trainer = IMATrainer(overrides={"resume": str(moved / "weights" / "last.pt")})
    trainer.train()
    assert trainer.save_dir == moved
    assert [row["epoch"] for row in rows(trainer)] == ["1", "2"]
    assert not first.save_dir.exists()


def test_a_run_is_resumed_from_another_folder(options: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(Path(options["data"]).parent)
    first = interrupted({**options, "data": Path(options["data"]).name, "epochs": 2}, epoch=0)
    monkeypatch.chdir(tmp_path)
    trainer = IMATrainer(overrides={"resume": str(first.last)})
    trainer.train()
    assert trainer.epoch == 1


def test_code_beside_the_checkpoint_is_not_run_on_resume(options: dict[str, Any]) -> None:
    """Ultralytics opens best.pt when the training ends."""
    first = interrupted({**options, "epochs": 2}, epoch=0)
    marker = first.wdir / "touched"

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    torch.save({"model": Code()}, first.best)
    with pytest.raises(IMAError, match="refused, since it carries code"):
        IMATrainer(overrides={"resume": str(first.last)})
    assert not marker.exists()


UNUSABLE = {
    "no labels": lambda root: shutil.rmtree(root / "labels"),
    "other classes": lambda root: [path.write_text("9 0.5 0.5 0.2 0.2\n") for path in root.glob("labels/*/*.txt")],
    "damaged images": lambda root: [path.write_bytes(b"x") for path in root.glob("images/*/*.png")],
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_data_that_cannot_be_trained_on_is_one_line_and_leaves_no_run(
    options: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(Path(options["data"]).parent, root, ignore=shutil.ignore_patterns("*.cache"))
    UNUSABLE[fault](root)
    text = (root / "data.yaml").read_text().replace(str(Path(options["data"]).parent), str(root))
    (root / "data.yaml").write_text(text)
    project = str(tmp_path / "runs" / "deep")
    trainer = IMATrainer(overrides={**options, "data": str(root / "data.yaml"), "project": project})
    with pytest.raises(IMAError) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists(), "nor what was made for it"


def test_a_size_that_opencv_cannot_make_is_one_line(options: dict[str, Any], tmp_path: Path) -> None:
    trainer = IMATrainer(overrides={**options, "project": str(tmp_path / "runs")})

    def too_large(_: Any) -> None:
        cv2.resize(np.zeros((2, 2, 3), np.uint8), (1 << 30, 1 << 30))

    trainer.add_callback("on_pretrain_routine_end", too_large)
    with pytest.raises(IMAError, match="OpenCV"):
        trainer.train()
    assert not trainer.save_dir.exists()


def test_what_was_in_a_folder_stays_when_the_data_fails(options: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(Path(options["data"]).parent, root, ignore=shutil.ignore_patterns("*.cache", "labels"))
    text = (root / "data.yaml").read_text().replace(str(Path(options["data"]).parent), str(root))
    (root / "data.yaml").write_text(text)
    precious = tmp_path / "runs" / "mine" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("x")
    place = {"project": str(tmp_path / "runs"), "name": "mine", "exist_ok": True}
    with pytest.raises(IMAError):
        IMATrainer(overrides={**options, "data": str(root / "data.yaml"), **place}).train()
    assert precious.exists()


def test_early_stopping_multi_scale_and_mosaic_do_what_they_do_without_us(options: dict[str, Any]) -> None:
    """The same sizes, the same stop and the same images as in plain training with the same keys."""
    seen: dict[str, dict[str, Any]] = {}
    keys = {"epochs": 4, "patience": 2, "multi_scale": 0.5, "close_mosaic": 3, "ima_weight": 0}
    for cls, given in ((DetectionTrainer, plain({**options, **keys})), (IMATrainer, {**options, **keys})):
        trainer = cls(overrides={**given, "name": cls.__name__})
        sizes: list[int] = []
        closed: list[int] = []
        original = trainer.preprocess_batch

        def keep(batch: dict[str, Any], original=original, sizes=sizes) -> dict[str, Any]:
            batch = original(batch)
            sizes.append(batch["img"].shape[2])
            return batch

        trainer.preprocess_batch = keep
        close = trainer._close_dataloader_mosaic

        def note(trainer=trainer, close=close, closed=closed) -> None:
            closed.append(trainer.epoch)
            close()

        trainer._close_dataloader_mosaic = note
        validate = trainer.validate
        trainer.validate = lambda validate=validate: (validate()[0], 0.5)  # a fitness that no longer rises
        trainer.train()
        seen[cls.__name__] = {"sizes": sizes, "epochs": len(rows(trainer)), "closed": closed}
    plainly = seen["DetectionTrainer"]
    assert seen["IMATrainer"] == plainly
    assert len(set(plainly["sizes"])) > 1
    assert plainly["closed"]
    assert plainly["epochs"] < 4


def test_each_term_has_a_column_in_the_progress_bar(options: dict[str, Any], caplog) -> None:
    caplog.set_level("INFO", "ultralytics")
    IMATrainer(overrides={**options, "ima_cls": 1, "ima_box": 1}).train()
    (header,) = {line for line in caplog.text.splitlines() if "GPU_mem" in line}
    for name in ("box_loss", "ima_loss", "kdcls_loss", "kdbox_loss", "Instances"):
        assert name in header.split(), "columns run into each other"


def test_a_process_that_is_killed_goes_on_with_resume(options: dict[str, Any], tmp_path: Path) -> None:
    words = [f"{key}={value}" for key, value in options.items()] + ["epochs=30", "name=killed"]
    words = [word for word in words if word != "epochs=1"]
    process = subprocess.Popen([sys.executable, "-m", "ima_yolo", "train", *words], stdout=subprocess.DEVNULL)
    results, last = tmp_path / "killed" / "results.csv", tmp_path / "killed" / "weights" / "last.pt"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (last.exists() and len(results.read_text().splitlines()) > 2):
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = len(results.read_text().splitlines()) - 1
    assert 1 < done < 30
    trainer = IMATrainer(overrides={"resume": str(last)})
    trainer.add_callback("on_train_epoch_end", lambda t: setattr(t, "stop", True))
    trainer.train()
    assert trainer.start_epoch in {done - 1, done, done + 1}
    assert trainer.epoch == trainer.start_epoch


def test_a_kill_while_saving_leaves_the_last_checkpoint_whole(options: dict[str, Any], monkeypatch) -> None:
    first = interrupted({**options, "epochs": 3}, epoch=0)
    content = first.last.read_bytes()
    trainer = IMATrainer(overrides={"resume": str(first.last)})
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise Stop

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(Stop):
        trainer.train()
    monkeypatch.undo()
    assert first.last.read_bytes() == content
    assert not (first.wdir / ".saving").exists()
