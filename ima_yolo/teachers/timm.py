"""Teachers from timm: convolutional backbones with a pyramid of maps, and vision transformers with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError, nearest, one_line
from ima_yolo.random_streams import repeatable
from ima_yolo.teachers.module import ModuleTeacher, pyramid, read_state

FINEST = 4  # pixels: the stride below which a map holds edges rather than objects


def timm_teacher(architecture: str, weights: str | None = None) -> ModuleTeacher:
    """Build a teacher from a backbone of timm, with the normalization that it was trained with.

    A single-scale backbone, such as a vision transformer of patch size 16, gives levels at half, once and twice its
    stride by interpolation and pooling.

    Args:
        architecture: For example "resnet50" or "vit_small_patch16_224.dino".
        weights: "pretrained" for those that timm publishes, which are downloaded; or a file with a state dictionary.
            None for random weights, the same each time, with a warning.

    Raises:
        IMAError: If timm is not installed, knows no such model, or the model or its weights cannot be used, as one
            that takes images of a single size.
    """
    name = f"timm:{architecture}"
    try:
        import timm
    except ImportError as error:
        raise IMAError(
            f"teacher={name}: timm is not installed; run `pip install '.[timm]'` where IMA-YOLO was cloned"
        ) from error
    if not timm.is_model(architecture):
        raise IMAError(f"teacher={name}: no such model in timm{nearest(architecture, timm.list_models())}")
    if weights is None:
        LOGGER.warning(f"{name} has random weights; give ima_teacher_weights=pretrained or a state file")
    try:
        model = _loaded(timm, architecture, weights, name)
    except IMAError:
        raise
    except Exception as error:
        given = "" if weights is None else f" with ima_teacher_weights={weights}"
        raise IMAError(f"teacher={name}: cannot be built{given} ({one_line(error)})") from error
    config = model.default_cfg
    layers = _Backbone(model)
    options = {"mean": config["mean"], "std": config["std"], "resampled_from": layers.stride_of_one}
    try:
        return ModuleTeacher(name, layers, multiple=layers.multiple, **options)
    except IMAError as error:
        _check_size(layers, config["input_size"], error)
        raise


@torch.no_grad()
def _check_size(layers: _Backbone, takes: tuple[int, int, int], fault: IMAError) -> None:
    """Say it in a line where the fault is the size of the image: some networks are built for a single one."""
    try:
        layers(torch.zeros(1, *takes))
    except Exception:
        return
    raise IMAError(
        f"{fault}; it takes images of {takes[1]} x {takes[2]} px and a teacher is shown those of its student: "
        "use a network that takes any size, a convolutional one or vit_*, deit_*, swin_*"
    ) from fault


def _loaded(timm: Any, architecture: str, weights: str | None, name: str) -> Any:
    """Build a backbone with random weights, those that timm publishes, or those of a file."""
    if weights in (None, "pretrained"):
        with repeatable():
            return _build(timm, architecture, {"pretrained": weights is not None})
    if not weights.endswith((".pt", ".pth")):
        raise IMAError(f"ima_teacher_weights={weights}: expected pretrained or a file (.pt, .pth) for teacher={name}")
    # handed over as tensors: timm itself would run the file's pickle
    overlay = {"state_dict": read_state(str(Path(weights)), name)}
    with repeatable():
        untouched = _build(timm, architecture, {"pretrained": False}).state_dict()
    with repeatable():
        model = _build(timm, architecture, {"pretrained": True, "pretrained_cfg_overlay": overlay})
    _check_filled(model.state_dict(), untouched, f"ima_teacher_weights={weights}: ", name)
    return model


def _check_filled(state: dict[str, Tensor], untouched: dict[str, Tensor], given: str, name: str) -> None:
    """Refuse a file that leaves layers at random values; timm fills what fits and is content with the rest.

    timm renames and reshapes weights while it loads them, so what was filled is told from the values: a layer that is
    as the same seed makes it without the file was not in the file.
    """
    drawn = [key for key, value in untouched.items() if value.ndim > 1 and value.unique().numel() > 1]
    missing = [key for key in drawn if torch.equal(state[key], untouched[key])]
    if missing:
        raise IMAError(f"{given}lacks {len(missing)} of {len(drawn)} layers of teacher={name}, {missing[0]} among them")


def _build(timm: Any, architecture: str, source: dict[str, Any]) -> Any:
    try:  # a transformer takes images of any size only if told so, and other models do not know the word
        return timm.create_model(architecture, features_only=True, dynamic_img_size=True, **source)
    except TypeError:
        return timm.create_model(architecture, features_only=True, **source)


class _Backbone(nn.Module):
    """A backbone of timm whose maps are all (B, C, H, W) and form a pyramid."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = model
        self.strides, self.widths = model.feature_info.reduction(), model.feature_info.channels()
        self.stride_of_one = self.strides[-1] if len(set(self.strides)) == 1 else None
        self.multiple = 2 * self.stride_of_one if self.stride_of_one else max(self.strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [
            level if level.shape[1] == width else level.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
            for level, width in zip(self.body(images), self.widths, strict=True)
        ]
        if self.stride_of_one:
            return pyramid(maps[-1], finer=1, coarser=1)
        return [level for level, stride in zip(maps, self.strides, strict=True) if stride >= FINEST]
