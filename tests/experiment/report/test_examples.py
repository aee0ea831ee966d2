from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ima_yolo.experiment.report import examples
from ima_yolo.experiment.report.mistakes import Objects


def objects(*boxes: tuple, sure: float = 0.9) -> Objects:
    return Objects(np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), int), np.full(len(boxes), sure))


def test_energy_is_the_root_mean_square_over_channels() -> None:
    level = torch.tensor([3.0, 4.0, 0.0, 0.0]).view(1, 4, 1, 1).expand(1, 4, 2, 3)
    assert examples.energy(level).tolist() == [[2.5] * 3] * 2  # sqrt(25 / 4)


def test_a_gain_is_the_difference_of_f1() -> None:
    box, other = (0, 0, 10, 10), (20, 20, 30, 30)
    truth = objects(box, other)
    assert examples._gain(truth, objects(box), objects(box, other)) == 1 - 2 / 3
    assert examples._gain(truth, objects(box), objects(box, sure=0.1)) == -2 / 3, "what is not sure is not shown"


def test_wins_and_losses_are_the_extremes_in_order(tiny_data: Path, monkeypatch) -> None:
    shown: dict[str, list[str]] = {}

    def draw(images: list[Path], columns: list) -> bytes:
        shown[str(len(shown))] = [image.stem for image in images]
        assert [column.title for column in columns] == ["Ground truth", "teacher", "none", "ima"]
        return b""

    monkeypatch.setattr(examples, "_jpeg_of", draw)
    images = [Path(f"{index}.png") for index in range(8)]
    gains = [0.0, 0.5, -0.2, 0.9, 0.1, 0.3, -0.6, 0.0]
    each = [objects((0, 0, 10, 10))] * 8
    found = {"teacher": each, "none": each, "ima": each}
    made = examples._pages(gains, images, {0: "cell"}, each, found)
    assert [figure.name for figure in made] == ["wins", "losses"]
    assert shown == {"0": ["3", "1", "5"], "1": ["6", "2"]}, "an image without a difference is neither"
    assert "(+0.90, +0.50, +0.30)" in made[0].caption
    assert examples._pages([0.0] * 8, images, {0: "cell"}, each, found) == []


def test_the_feature_picture_has_a_row_a_model_and_one_for_the_mask(
    tiny_checkpoint: Callable[..., Path], tiny_data: Path
) -> None:
    models = {"teacher": tiny_checkpoint("yolo26s-few.yaml", seed=1), "ima": tiny_checkpoint()}
    image = tiny_data.parent / "images" / "val" / "0.png"

    def size(mask: tuple[str, float]) -> tuple[int, int]:
        return Image.open(io.BytesIO(examples.feature_figure(models, image, 64, mask).content)).size

    plain, masked = size(("none", 0.5)), size(("frequency", 0.5))
    assert plain[0] == masked[0]
    assert abs(masked[1] / plain[1] - 3 / 2) < 0.02
    assert "random spatial mask of ratio 0.5" in examples.feature_figure(models, image, 64, ("spatial", 0.5)).caption
