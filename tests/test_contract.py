"""What this package relies on in Ultralytics: a new release that changes any of it fails here, by name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import ultralytics
from packaging.specifiers import SpecifierSet
from ultralytics.data import dataset
from ultralytics.data.build import InfiniteDataLoader, _RepeatSampler
from ultralytics.data.dataset import YOLODataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.engine.validator import BaseValidator
from ultralytics.nn.tasks import (
    BaseModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    RTDETRDetectionModel,
    SegmentationModel,
    SemanticSegmentationModel,
    yaml_model_load,
)
from ultralytics.utils import DEFAULT_CFG_DICT, YAML
from ultralytics.utils.dist import generate_ddp_file

from ima_yolo import IMATrainer, host
from ima_yolo.architecture import check_architecture
from ima_yolo.attach import _Distilling
from ima_yolo.continuing import Continuing
from ima_yolo.recipes import CARRIED
from ima_yolo.trainer import TRAINERS, Distilling
from ima_yolo.unlabelled import UnlabelledImages

CONFIGS = sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))
# Heads that classify an image, one by one: they take a single map.
WITHOUT_NECK = {"Classify"}


STUDENTS = {
    "detect": DetectionModel,
    "rtdetr": RTDETRDetectionModel,
    "segment": SegmentationModel,
    "semantic": SemanticSegmentationModel,
    "pose": PoseModel,
    "obb": OBBModel,
}
TRAINER = {
    "train": ["self"],
    "set_model_attributes": ["self"],
    "_load_checkpoint_state": ["self", "ckpt"],
    "save_model": ["self"],
    "final_eval": ["self"],
    "save_metrics": ["self", "metrics"],
    "auto_batch": ["self", "max_num_obj", "dataset_size"],
    "preprocess_batch": ["self", "batch"],
    "_build_train_pipeline": ["self"],
    "_close_dataloader_mosaic": ["self"],
    "optimizer_step": ["self"],
    "resume_training": ["self", "ckpt"],
    "_do_train": ["self"],
    "__init__": ["self", "cfg", "overrides", "_callbacks"],
}
MODEL = {
    "loss": ["self", "batch", "preds"],
    "state_dict": ["self", "args", "destination", "prefix", "keep_vars"],
    "load_state_dict": ["self", "state_dict", "strict", "assign"],
    "__deepcopy__": None,  # of no class yet: ours would hide one that comes
    "__reduce_ex__": ["self", "protocol"],
}
DATASET = {"get_labels": ["self"], "load_image": ["self", "i", "rect_mode", "resize_short"]}
OWN = {"exact_state", "go_on_exactly", "_cannot_be_written", "_plain_state", "accumulate", "_cadence"}
OWN |= {"_load_distillation", "_tell_workers"}
"""What our classes have beside what they override; `accumulate` stands in for an attribute."""

# class of ours -> the class of Ultralytics that it stands before, and the parameters of each method that it overrides
OVERRIDDEN: list[tuple[tuple[type, ...], type, dict[str, Any]]] = [
    ((Distilling, Continuing), BaseTrainer, TRAINER),
    ((_Distilling,), BaseModel, MODEL),
    ((UnlabelledImages,), YOLODataset, DATASET),
]


@pytest.mark.parametrize(("ours", "theirs", "methods"), OVERRIDDEN, ids=["trainer", "model", "dataset"])
def test_overridden_methods_take_what_they_took(
    ours: tuple[type, ...], theirs: type, methods: dict[str, list[str] | None]
) -> None:
    defined = {
        name for cls in ours for name, value in vars(cls).items() if callable(value) or isinstance(value, property)
    }
    assert defined - OWN == set(methods), "an override without a contract, or a contract without one"
    for name, parameters in methods.items():
        found = getattr(theirs, name, None)
        if parameters is None:
            assert found is None, name
        elif name == "__reduce_ex__":
            assert found is object.__reduce_ex__
        else:
            assert list(inspect.signature(found).parameters) == parameters, name


@pytest.mark.parametrize("kind", TRAINERS)
def test_every_trainer_and_student_takes_the_same(kind: str) -> None:
    """Subclasses of a task have methods of their own, to which ours pass on."""
    base = next(
        cls for cls in TRAINERS[kind].__mro__[1:] if not issubclass(cls, Distilling) and issubclass(cls, BaseTrainer)
    )
    for name in TRAINER.keys() - {"__init__", "auto_batch"}:  # of the latter ours passes on whatever it gets
        found = list(inspect.signature(getattr(base, name)).parameters)
        assert found == TRAINER[name], f"{base.__name__}.{name}"
    model = STUDENTS[kind]
    assert list(inspect.signature(model.loss).parameters) == MODEL["loss"], model.__name__


def test_every_cache_of_labels_is_opened_by_the_function_that_is_replaced() -> None:
    """`data_set.guard_caches` puts one that looks first in its place, under the name by which data sets call it."""
    assert list(inspect.signature(dataset.load_dataset_cache_file).parameters) == ["path"]
    opening = [cls for cls in vars(dataset).values() if inspect.isclass(cls) and cls.__module__ == dataset.__name__]
    sources = {cls.__name__: inspect.getsource(cls) for cls in opening}
    assert all("load_dataset_cache_file(" in sources[name] for name in ("YOLODataset", "ClassificationDataset"))
    assert "np.load(" not in "".join(sources.values()).replace("np.load(im_file", "").replace("np.load(f", "")


def test_the_loop_asks_for_the_accumulation_that_we_tell() -> None:
    loop = inspect.getsource(BaseTrainer._do_train)
    assert "if ni - last_opt_step >= self.accumulate:" in loop
    assert "self.accumulate = max(1, int(np.interp(" in loop
    assert "self.accumulate = " in inspect.getsource(BaseTrainer._build_train_pipeline)


def test_the_loader_makes_its_iterator_where_the_order_is_followed() -> None:
    """`ima_yolo.data_order` stands in for `_get_iterator`, the repeated sampler's sampler and `collate_fn`."""
    source = inspect.getsource(InfiniteDataLoader)
    assert source.count("self._get_iterator()") + source.count("super().__iter__()") >= 1
    assert "self.sampler = sampler" in inspect.getsource(_RepeatSampler)


def test_where_a_loop_on_a_cpu_would_need_a_gpu() -> None:
    """The four places that `benchmarks/processes.py` steps around: one that is gone there is one less here."""
    assert 'if self.device.type in {"cpu", "mps"}:\n            world_size = 0' in inspect.getsource(
        BaseTrainer.__init__
    )
    assert "self.accelerator.set_device(index)" in inspect.getsource(BaseTrainer._setup_ddp)
    assert "device_ids=[self.device.index]" in inspect.getsource(BaseTrainer._setup_train)
    assert "get_torch_device_backend(device_type).current_device()" in inspect.getsource(BaseValidator.__call__)


def test_what_follows_the_last_epoch_is_what_a_trained_run_is_given() -> None:
    tail = inspect.getsource(BaseTrainer._do_train).partition("self.final_eval()")[2]
    steps = (
        "if self.args.plots:",
        "self.plot_metrics()",
        'run_callbacks("on_train_end")',
        "_clear_memory()",
        ".close()",
    )
    places = [tail.index(step) for step in steps]
    assert places == sorted(places)
    assert tail.count("self.") == 6, "a step that is new here is missing in Continuing._do_train"


def test_the_student_is_attached_before_freezing_optimizer_and_averaging() -> None:
    source = inspect.getsource(BaseTrainer._setup_train)
    steps = ("self.setup_model()", "self.set_model_attributes()", "attempt_compile(", "freeze_layer_names")
    steps += ("GradScaler", "DistributedDataParallel(", "self._build_train_pipeline()", "ModelEMA(")
    steps += ("self.resume_training(ckpt)",)
    places = [source.index(step) for step in steps]
    assert places == sorted(places)
    assert "build_optimizer(" in inspect.getsource(BaseTrainer._build_train_pipeline)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_no_architecture_of_ultralytics_is_refused(config: Path) -> None:
    check_architecture(YAML.load(config))


def test_loss_items_are_named(tiny_checkpoint: Callable[..., Path]) -> None:
    model, _ = host.load_model(tiny_checkpoint(), "student")
    model.train().requires_grad_(True)
    model.args = SimpleNamespace(**DEFAULT_CFG_DICT)
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.zeros(1),
        "cls": torch.zeros(1, 1),
        "bboxes": torch.full((1, 4), 0.5),
    }
    loss, items = model.loss(batch)
    assert loss.requires_grad
    assert all(isinstance(name, str) and value.ndim == 0 for name, value in items.items())
    assert len(items) == 3


@pytest.mark.parametrize("config", [path.name for path in CONFIGS])
def test_every_head_is_fed_a_list_of_maps(config: str) -> None:
    """Of every architecture that Ultralytics ships; the neck is read off as `host.neck` reads it."""
    layers = yaml_model_load(config)["head"]
    inputs, _, name, _ = layers[-1]
    assert isinstance(inputs, list) or name in WITHOUT_NECK, f"{name} takes {inputs}"


def worker_state(trainer: IMATrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What Ultralytics writes for the processes of a training on several devices."""
    monkeypatch.setattr("ultralytics.utils.dist.USER_CONFIG_DIR", tmp_path)
    trainer._tell_workers()
    script = Path(generate_ddp_file(trainer))
    assert 'trainer = state["trainer"](cfg=cfg, overrides=state["args"], _callbacks=state["callbacks"])' in (
        script.read_text()
    )
    with script.with_suffix(".pt").open("rb") as file:
        return dict(torch.load(file, map_location="cpu", weights_only=False))


@pytest.mark.parametrize("interface", ["options", "resumed", "file"])
def test_the_process_of_another_device_is_told_everything(
    interface: str, tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch
) -> None:
    options = {
        "teacher": tiny_checkpoint("yolo26s-few.yaml", seed=1),
        "model": str(tiny_checkpoint()),
        "data": str(tiny_data),
        "project": str(tmp_path),
        "epochs": 2,
        "imgsz": 64,
        "batch": 4,
        "plots": False,
        "workers": 0,
        "val": False,
        "ima_mask_ratio": 0.3,
        "ima_levels": (8, 16),
    }
    if interface == "file":  # of a run that is trained anew in its own place, as YOLO.train reads it
        said = {"save_dir": str(tmp_path / "again"), "project": str(tmp_path), "name": "again", "epochs": 2}
        (tmp_path / "args.yaml").write_text(json.dumps(said))
        options = {**options, **said, "cfg": str(tmp_path / "args.yaml")}
    parent = IMATrainer(overrides=options)
    if interface == "resumed":
        parent.add_callback("on_model_save", lambda trainer: (_ for _ in ()).throw(KeyError))
        with pytest.raises(KeyError):
            parent.train()
        parent = IMATrainer(overrides={"resume": str(parent.last)})
    state = worker_state(parent, monkeypatch, tmp_path)

    # Ultralytics' own words in that process
    monkeypatch.setattr("ima_yolo.trainer.RANK", 0)
    worker = state["trainer"](
        cfg={**DEFAULT_CFG_DICT, "save_dir": ""}, overrides=state["args"], _callbacks=state["callbacks"]
    )
    assert worker.settings == parent.settings
    assert worker.teachers[0].digest() == parent.teachers[0].digest()
    assert worker.save_dir == parent.save_dir
    assert interface != "file" or worker.save_dir == tmp_path / "again"
    assert not hasattr(worker.args, CARRIED)
    worker.train()
    assert [line.split(",")[0] for line in worker.csv.read_text().splitlines()] == ["epoch", "1", "2"]


def test_the_tested_range_is_within_what_the_package_asks_for() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    wanted = next(
        d for d in tomllib.loads(text)["project"]["optional-dependencies"]["train"] if d.startswith("ultralytics")
    )
    asked = SpecifierSet(wanted.removeprefix("ultralytics"))
    for edge in host.TESTED:
        assert ".".join(map(str, edge)) in asked


def test_loggers_take_a_trainer_by_its_name() -> None:
    """Ultralytics hangs its loggers on classes whose name says so."""
    assert "Trainer" in IMATrainer.__name__
    assert YAML.load(Path(ultralytics.__file__).parent / "cfg" / "default.yaml").keys() == DEFAULT_CFG_DICT.keys()
