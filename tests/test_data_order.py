"""A loader that is followed goes on with the same images, and is otherwise left alone."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

from ima_yolo.data_order import DataOrder


def batches(data: Path, workers: int, state: dict[str, Any] | None = None, close: int = 2) -> Iterator[Any]:
    """Digests of three epochs' batches, each epoch's followed by the state at its end."""
    cfg = get_cfg(overrides={"imgsz": 64, "mosaic": 1.0, "task": "detect"})
    dataset = build_yolo_dataset(cfg, str(data.parent / "images" / "train"), 3, check_det_dataset(str(data)))
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - Ultralytics augments from it
    loader = build_dataloader(dataset, 3, workers, shuffle=True, rank=-1, device="cpu")
    if loader.num_workers != workers:
        pytest.skip("this machine has one core")
    order, closed = DataOrder(loader), False
    for epoch in range(state["epoch"] + 1 if state else 0, 3):
        if state:
            assert order.restore(state["order"], anew=epoch == close)
            state = None
        if epoch >= close and not closed:  # as Ultralytics' loop does, in a resumed run too
            closed = True
            dataset.close_mosaic(copy(cfg))
            loader.reset()
        yield [zlib.crc32(order.take(batch)["img"].numpy().tobytes()) for batch in loader]
        yield {"epoch": epoch, "order": order.state()}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("close", [1, 2, 9])
def test_a_loader_goes_on_with_the_same_images(tiny_data: Path, workers: int, epoch: int, close: int) -> None:
    """Ultralytics has workers on GPUs alone; its loader has them anywhere."""
    whole = list(batches(tiny_data, workers, close=close))
    assert whole[0] != whole[2]
    resumed = list(batches(tiny_data, workers, whole[2 * epoch + 1], close))
    assert resumed[::2] == whole[2 * epoch + 2 :: 2]


def test_what_is_noted_of_the_images_does_not_add_up(tiny_data: Path) -> None:
    """Also where nothing is saved, which alone would ask for it."""
    cfg = get_cfg(overrides={"imgsz": 64, "mosaic": 0.0, "task": "detect"})
    dataset = build_yolo_dataset(cfg, str(tiny_data.parent / "images" / "train"), 3, check_det_dataset(str(tiny_data)))
    loader = build_dataloader(dataset, 3, 0, shuffle=True, rank=-1, device="cpu")
    order = DataOrder(loader)
    for _ in range(5):
        for batch in loader:
            order.take(batch)
    assert len(order._sampler._states) <= 1


def test_a_loader_is_not_changed_by_being_followed(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = list(batches(tiny_data, 2))[::2]
    monkeypatch.setattr(DataOrder, "__init__", lambda self, loader: None)
    monkeypatch.setattr(DataOrder, "take", lambda self, batch: batch)
    monkeypatch.setattr(DataOrder, "state", lambda self: None)
    assert list(batches(tiny_data, 2))[::2] == followed
