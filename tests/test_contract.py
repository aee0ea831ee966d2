"""What this package relies on in Ultralytics: a new release that changes any of it fails here, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import ultralytics
from packaging.specifiers import SpecifierSet
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import BaseModel, yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT, YAML
from ultralytics.utils.dist import generate_ddp_file

from ima_yolo import IMATrainer, host
from ima_yolo.continuing import Continuing
from ima_yolo.trainer import CARRIED, Distilling
from ima_yolo.trust import check_architecture

CONFIGS = sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))
# Heads that classify an image, one by one: they take a single map.
WITHOUT_NECK = {"Classify"}


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("train", ["self"]),
        ("set_model_attributes", ["self"]),
        ("_load_checkpoint_state", ["self", "ckpt"]),
        ("save_model", ["self"]),
        ("final_eval", ["self"]),
        ("save_metrics", ["self", "metrics"]),
        ("auto_batch", ["self", "max_num_obj", "dataset_size"]),
        ("preprocess_batch", ["self", "batch"]),
        ("_build_train_pipeline", ["self"]),
        ("optimizer_step", ["self"]),
        ("resume_training", ["self", "ckpt"]),
        ("_do_train", ["self"]),
    ],
)
def test_overridden_methods_take_what_they_took(method: str, parameters: list[str]) -> None:
    assert method in {**vars(Distilling), **vars(Continuing)}
    assert list(inspect.signature(getattr(BaseTrainer, method)).parameters) == parameters


def test_every_override_is_of_a_method_that_is_still_there() -> None:
    methods = {**vars(Distilling), **vars(Continuing)}
    own = {name for name, value in methods.items() if callable(value)}
    assert own - {"exact_state", "go_on_exactly", "_cannot_be_written"} <= set(dir(BaseTrainer))


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


def test_the_constructor_takes_what_it_took() -> None:
    assert list(inspect.signature(BaseTrainer.__init__).parameters) == ["self", "cfg", "overrides", "_callbacks"]


def test_loss_takes_what_it_took() -> None:
    assert list(inspect.signature(BaseModel.loss).parameters) == ["self", "batch", "preds"]


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
    setattr(trainer.args, CARRIED, trainer.settings.model_dump(mode="json"))
    script = Path(generate_ddp_file(trainer))
    assert 'trainer = state["trainer"](cfg=cfg, overrides=state["args"], _callbacks=state["callbacks"])' in (
        script.read_text()
    )
    with script.with_suffix(".pt").open("rb") as file:
        return dict(torch.load(file, map_location="cpu", weights_only=False))


@pytest.mark.parametrize("interface", ["options", "resumed"])
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
    parent = IMATrainer(overrides=options)
    if interface == "resumed":
        parent.add_callback("on_model_save", lambda trainer: (_ for _ in ()).throw(KeyError))
        with pytest.raises(KeyError):
            parent.train()
        parent = IMATrainer(overrides={"resume": str(parent.last)})
    state = worker_state(parent, monkeypatch, tmp_path)

    # Ultralytics' own words in that process
    worker = state["trainer"](
        cfg={**DEFAULT_CFG_DICT, "save_dir": ""}, overrides=state["args"], _callbacks=state["callbacks"]
    )
    assert worker.settings == parent.settings
    assert worker.teachers[0].digest() == parent.teachers[0].digest()
    assert worker.save_dir == parent.save_dir
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
