"""Teachers from torchvision: detectors with a feature pyramid, and the DeepLabV3 and FCN segmenters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import detection, get_model, get_model_weights, list_models, segmentation
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError, nearest, one_line
from ima_yolo.random_streams import repeatable
from ima_yolo.teachers.module import ModuleTeacher, pyramid, read_state

SEGMENTERS = ("deeplabv3_", "fcn_")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's segmenters


def torchvision_teacher(architecture: str, weights: str | None = None) -> ModuleTeacher:
    """Build a teacher from a model of torchvision, with torchvision's own normalization.

    A detector shows the maps of its feature pyramid. A segmenter shows the map that its last convolution classifies, of
    stride 8, and means of it at 16 and 32.

    Args:
        architecture: For example "retinanet_resnet50_fpn" or "deeplabv3_resnet101".
        weights: Name of one of torchvision's weights, such as "COCO_V1" or "DEFAULT", which are downloaded; or a file
            with a state dictionary, in which the layers that depend on the number of classes may be of any size. None
            for random weights, the same each time, with a warning.

    Raises:
        IMAError: If there is no such model, it has no pyramid, or the weights cannot be had.
    """
    name = f"torchvision:{architecture}"
    known = [*list_models(module=detection), *list_models(module=segmentation)]
    if architecture not in known:
        raise IMAError(f"teacher={name}: no such detector or segmenter in torchvision{nearest(architecture, known)}")
    segments = architecture.startswith(SEGMENTERS)
    with repeatable():
        model = _load(name, architecture, weights, segments)
    if segments:
        layers = _Penultimate(model)
        return ModuleTeacher(name, layers, mean=IMAGENET_MEAN, std=IMAGENET_STD, resampled_from=8)
    if not hasattr(getattr(model, "backbone", None), "fpn"):
        raise IMAError(f"teacher={name}: has no feature pyramid; expected a detector with fpn in its name")
    return ModuleTeacher(name, model.backbone, mean=model.transform.image_mean, std=model.transform.image_std)


class _Penultimate(nn.Module):
    """A segmenter up to the layer that classifies each cell."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, nn.Sequential(*list(model.classifier)[:-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        return pyramid(self.head(self.backbone(images)["out"]), finer=0, coarser=2)


def _load(name: str, architecture: str, weights: str | None, segments: bool) -> Any:
    """Build a model with random weights, those of a file, or those that torchvision publishes."""
    if weights is None:
        LOGGER.warning(f"{name} has random weights; give ima_teacher_weights=DEFAULT or a state file to learn from it")
        return get_model(architecture, weights=None, weights_backbone=None)
    published = get_model_weights(architecture)
    choice = weights.rpartition(".")[2]
    if choice in published.__members__:
        try:
            return get_model(architecture, weights=published[choice], weights_backbone=None)
        except OSError as error:
            raise IMAError(f"ima_teacher_weights={weights}: could not be downloaded ({one_line(error)})") from error
    if not weights.endswith((".pt", ".pth")):
        names = ", ".join(published.__members__)
        raise IMAError(f"ima_teacher_weights={weights}: expected {names} or a file (.pt, .pth) for teacher={name}")
    model = get_model(architecture, weights=None, weights_backbone=None)
    _fill(model, read_state(weights, name), name, weights, ("backbone.", "classifier.") if segments else ("backbone.",))
    return model


def _fill(model: Any, state: dict[str, Tensor], name: str, weights: str, parts: tuple[str, ...]) -> None:
    """Load the layers that make the maps; those that tell classes apart may be missing or of another size."""
    own = model.state_dict()
    last = f"classifier.{len(model.classifier) - 1}." if "classifier." in parts else "none of them"
    needed = {key for key in own if key.startswith(parts) and not key.startswith(last)}
    unfit = sorted(key for key in needed if key not in state or state[key].shape != own[key].shape)
    if unfit:
        raise IMAError(f"ima_teacher_weights={weights}: {unfit[0]} and others do not fit teacher={name}")
    model.load_state_dict({key: state[key] for key in needed}, strict=False)
