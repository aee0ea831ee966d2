"""Every task that Ultralytics trains: an epoch, resuming, plain checkpoints, and an ONNX file equal to torch."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load

import ima_yolo.trainer as trainers
from ima_yolo import IMATrainer
from ima_yolo.errors import IMAError
from ima_yolo.export.onnx import export_onnx
from ima_yolo.preflight import prepare

COMMON = {"epochs": 2, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "optimizer": "AdamW", "lr0": 0.001}
COMMON |= {"ima_gate": False}  # or an untrained teacher, which knows nothing more, rests
# kind of student -> architecture, trainer, class in the checkpoint, levels distilled
STUDENTS = {
    "segment": ("yolo26n-seg.yaml", "IMASegmentationTrainer", "SegmentationModel", (8, 16, 32)),
    "semantic": ("yolo26n-sem.yaml", "IMASemanticTrainer", "SemanticSegmentationModel", (8, 16)),
    "pose": ("yolo26n-pose.yaml", "IMAPoseTrainer", "PoseModel", (8, 16, 32)),
    "obb": ("yolo26n-obb.yaml", "IMAOBBTrainer", "OBBModel", (8, 16, 32)),
    "rtdetr": ("yolov8n-rtdetr.yaml", "IMARTDETRTrainer", "RTDETRDetectionModel", (8, 16, 32)),
}


class Stop(Exception):
    """Ends a run between two epochs."""


def stop(_: Any) -> None:
    raise Stop


@pytest.fixture
def options(task_data: Callable[[str], Path], lively_teacher: Path, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    def make(kind: str) -> dict[str, Any]:
        data = task_data("detect" if kind == "rtdetr" else kind)
        student = STUDENTS[kind][0]
        return {**COMMON, "teacher": lively_teacher, "model": student, "data": str(data), "project": str(tmp_path)}

    return make


def check_whole_line(kind: str, options: dict[str, Any]) -> None:
    """Train, stop, resume, look into the checkpoint, export."""
    _, trainer_name, model_name, strides = STUDENTS[kind]
    first = IMATrainer(overrides=options)
    assert type(first).__name__ == trainer_name
    first.add_callback("on_model_save", stop)
    with pytest.raises(Stop):
        first.train()
    running = torch_safe_load(first.last, safe_only=True)[0]
    adapters = running["ima"]["distiller"]["adapters"]

    resumed = IMATrainer(overrides={"resume": str(first.last)})
    assert type(resumed) is type(first)
    restored: dict[str, Any] = {}
    resumed.add_callback("on_train_start", lambda trainer: restored.update(trainer.distiller.state()["adapters"]))
    resumed.train()
    assert restored.keys() == adapters.keys()
    assert all(torch.equal(restored[name], adapters[name]) for name in adapters)
    assert resumed.distiller.criterion.strides == strides
    with resumed.csv.open() as file:
        terms = [float(row["train/ima_loss"]) for row in csv.DictReader(file)]
    assert len(terms) == 2
    assert min(terms) > 0

    finished, _ = torch_safe_load(resumed.last, safe_only=True)
    assert type(finished["model"]).__name__ == model_name
    assert type(finished["model"]).__module__ == "ultralytics.nn.tasks"
    assert not any("ima" in name.split(".") for name in finished["model"].state_dict())
    report = export_onnx(resumed.last, imgsz=64)
    assert report.path.exists()
    assert report.images > 0


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_task_trains_resumes_saves_plain_and_exports(kind: str, options: Callable[[str], dict[str, Any]]) -> None:
    check_whole_line(kind, options(kind))


@pytest.mark.parametrize("kind", ["segment", "rtdetr"])
def test_ultralytics_own_interface_gets_the_trainer_of_the_task(
    kind: str, options: Callable[[str], dict[str, Any]]
) -> None:
    from ultralytics import RTDETR

    chosen = {key: value for key, value in options(kind).items() if key != "model"}
    model = (RTDETR if kind == "rtdetr" else YOLO)(STUDENTS[kind][0])
    model.train(trainer=IMATrainer, **{**chosen, "epochs": 1, "val": False})
    assert type(model.trainer).__name__ == STUDENTS[kind][1]
    assert type(model.model).__name__ == STUDENTS[kind][2]


@pytest.mark.parametrize("kind", STUDENTS)
def test_the_distillation_term_is_in_proportion_to_the_task(
    kind: str, options: Callable[[str], dict[str, Any]]
) -> None:
    """Its pull at the neck is that of the task times the ratio, whatever a task's loss is summed over."""
    chosen = {**options(kind), "epochs": 1, "val": False, "save": False, "ima_weight_ratio": 2}
    trainer = IMATrainer(overrides=chosen)
    norms: list[tuple[float, float]] = []

    def norm(loss: torch.Tensor, maps: Any) -> float:
        found = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
        return float(sum(gradient.square().sum() for gradient in found if gradient is not None).sqrt())

    def watch(trainer: IMATrainer) -> None:
        student, distiller = trainer.model, trainer.distiller
        seen: list[Any] = []
        distiller.register_forward_pre_hook(lambda _, args: seen.append(args[1]))

        def loss(*args: Any) -> Any:
            del student.loss
            loss, items = student.loss(*args)
            norms.append((norm(loss[:-1].sum(), seen[0].maps), norm(loss[-1], seen[0].maps)))
            return loss, items

        student.loss = loss

    trainer.add_callback("on_train_start", watch)
    trainer.train()
    task, term = norms[0]
    assert term == pytest.approx(2 * task, rel=1e-3)


def test_semantic_instances_are_regions_of_a_class(options: Callable[[str], dict[str, Any]]) -> None:
    trainer = IMATrainer(overrides={**options("semantic"), "epochs": 1, "val": False})
    trainer.train()
    assert trainer.distiller.criterion.members[0].levels["8"].instance == "region"
    with pytest.raises(IMAError, match="task semantic has no boxes"):
        prepare({**options("semantic"), "ima_instance": "box"})
    with pytest.raises(IMAError, match="regions of a class are known for task semantic alone"):
        prepare({**options("obb"), "ima_instance": "region"})


@pytest.mark.parametrize("kind", ["segment", "obb", "pose"])
def test_objects_of_every_task_with_boxes_can_be_instances(kind: str, options: Callable[[str], dict[str, Any]]) -> None:
    trainer = IMATrainer(overrides={**options(kind), "epochs": 1, "val": False, "ima_instance": "box"})
    trainer.train()
    with trainer.csv.open() as file:
        assert float(next(csv.DictReader(file))["train/ima_loss"]) > 0


def test_a_student_of_another_task_than_asked_for_is_refused(options: Callable[[str], dict[str, Any]]) -> None:
    with pytest.raises(IMAError, match="a model for segment, but detect is to be trained"):
        IMATrainer(overrides={**options("segment"), "task": "detect"})
    with pytest.raises(IMAError, match="a model for segment, but pose is to be trained"):
        trainers.IMAPoseTrainer(overrides=options("segment"))


def test_pose_needs_to_know_its_keypoints(options: Callable[[str], dict[str, Any]], task_data) -> None:
    with pytest.raises(IMAError, match="no kpt_shape"):
        prepare({**options("pose"), "data": str(task_data("detect"))})


@pytest.mark.parametrize("kind", ["segment", "semantic"])
def test_real_images_of_pixel_tasks(
    kind: str, options: Callable[[str], dict[str, Any]], shared: Path, tmp_path: Path
) -> None:
    import shutil

    source = shared / "data" / f"coco128-{'seg' if kind == 'segment' else 'sem'}"
    shutil.copytree(source, tmp_path / "data", copy_function=shutil.copyfile)
    for folder in (tmp_path / "data").rglob("*"):
        folder.chmod(0o755)
    data = {"data": str(tmp_path / "data" / "data.yaml"), "fraction": 0.2, "val": False}
    check_whole_line(kind, {**options(kind), **data})
