"""Values that Ultralytics lets pass, and what is a number of layers, a size, a batch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.cfg import get_cfg
from ultralytics.engine.trainer import BaseTrainer

from ima_yolo.errors import IMAError
from ima_yolo.ranges import OPTIMIZERS, check_classes, check_layers, check_ranges


def arguments(**changed: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(get_cfg()), **changed})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers", -1),
        ("close_mosaic", -1),
        ("warmup_epochs", -0.5),
        ("box", -1.0),
        ("cls", -1.0),
        ("dfl", -1.0),
        ("optimizer", "sdg"),
        ("time", 0),
        ("batch", 0),
        ("batch", True),
        ("batch", -2),
        ("batch", 1.5),
        ("imgsz", 31),
        ("imgsz", True),
        ("imgsz", "640"),
        ("imgsz", []),
        ("imgsz", [640, 0]),
        ("cache", "tape"),
        ("copy_paste_mode", "foo"),
        ("freeze", -1),
        ("freeze", [1.5]),
        ("classes", [-1]),
        ("classes", ["cat"]),
        ("classes", []),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, value: Any) -> None:
    with pytest.raises(IMAError) as caught:
        check_ranges(arguments(**{key: value}))
    assert str(caught.value).startswith(f"{key}={value}: expected ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", -1),
        ("batch", 0.7),
        ("batch", 8.0),
        ("imgsz", 32),
        ("imgsz", [640, 480]),
        ("optimizer", "adamw"),
        ("cache", "ram"),
        ("cache", True),
        ("time", 0.5),
        ("warmup_epochs", 0),
        ("freeze", 10),
        ("freeze", [0, "23.cv2"]),
        ("classes", 0),
        ("classes", [0, 2]),
    ],
)
def test_what_ultralytics_means_passes(key: str, value: Any) -> None:
    check_ranges(arguments(**{key: value}))


def test_the_defaults_pass() -> None:
    check_ranges(arguments())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "auto"])
def test_every_optimizer_on_the_list_is_one_of_ultralytics(name: str) -> None:
    import torch

    trainer = SimpleNamespace(args=get_cfg(), data={"nc": 3})
    model = torch.nn.Module()
    model.model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    optimizer = BaseTrainer.build_optimizer(trainer, model, name=name)
    assert type(optimizer).__name__.lower() == name.lower()


@pytest.mark.parametrize("freeze", [None, 0, 23, [0, 22], ["23.cv2"], list(range(23))])
def test_layers_that_can_be_frozen(freeze: Any) -> None:
    check_layers(freeze, layers=24)


@pytest.mark.parametrize("freeze", [24, [24], list(range(24))])
def test_layers_that_cannot_be_frozen(freeze: Any) -> None:
    with pytest.raises(IMAError, match="layers 0 to 23"):
        check_layers(freeze, layers=24)


@pytest.mark.parametrize(("classes", "passes"), [(None, True), (2, True), ([0, 2], True), (3, False), ([0, 3], False)])
def test_classes_of_the_data(classes: Any, passes: bool) -> None:
    if passes:
        check_classes(classes, count=3)
    else:
        with pytest.raises(IMAError, match="classes 0 to 2"):
            check_classes(classes, count=3)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "Adamax", "RAdam"])
def test_momentum_is_a_share_below_one_where_it_is_divided_by_the_rest(optimizer: str) -> None:
    with pytest.raises(IMAError, match=f"^momentum=1.0: expected less than 1 with optimizer={optimizer}$"):
        check_ranges(arguments(optimizer=optimizer, momentum=1.0))
    check_ranges(arguments(optimizer="SGD", momentum=1.0))


@pytest.mark.parametrize("key", ["time", "degrees", "lr0", "box", "warmup_epochs"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_no_setting_is_endless(key: str, value: float) -> None:
    with pytest.raises(IMAError, match=f"{key}={value}: expected a finite number"):
        check_ranges(arguments(**{key: value}))
