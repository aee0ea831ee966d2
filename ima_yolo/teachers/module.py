"""Teachers that are any torch module with feature maps, and what every host's teacher shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from ima_yolo.errors import IMAError, one_line
from ima_yolo.features import Features
from ima_yolo.pickles.check import check_checkpoint
from ima_yolo.pickles.content import check_content
from ima_yolo.plain_files import check_plain
from ima_yolo.teachers import TeacherOutput

PAD = 114 / 255  # the grey of Ultralytics' letterbox
PROBE_SIZE = 256  # pixels, at least; rounded up to what the model's layers divide

Maps = Mapping[Any, Tensor] | Sequence[Tensor]


class ModuleTeacher:
    """A frozen `nn.Module` and a way to its maps, as a `Teacher`.

    Strides and channels are found by looking at one image. Of two maps with one stride the later is kept.

    Args:
        name: How messages call it.
        model: Put on the right device, frozen and switched to evaluation here.
        maps: (B, C, H, W) normalized images -> maps, a list or a dictionary; None to call the model itself.
        mean: Of each input channel on the scale [0, 1]; for a network that takes 0 to 255, its mean / 255.
        std: Of each input channel on the same scale; 1 / 255 for a network that takes 0 to 255 and divides by nothing.
        bgr: Whether the network takes blue first; `mean` and `std` are then in that order.
        input_channels: Channels of its images.
        multiple: Images are extended to the right and below to a multiple of this many pixels.
        class_names: Class names by index, if it knows any.
        resampled_from: Stride of the map from which all others are resampled, see `pyramid`; None where each is the
            network's own.

    Raises:
        IMAError: If the model cannot be run, or its maps cannot be used.
    """

    predicts = False

    def __init__(
        self,
        name: str,
        model: nn.Module,
        maps: Callable[[Tensor], Maps] | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr: bool = False,
        input_channels: int = 3,
        multiple: int = 32,
        class_names: dict[int, str] | None = None,
        resampled_from: int | None = None,
    ) -> None:
        """Freeze the model and look at one image."""
        self.name = name
        self.input_channels = input_channels
        self.class_names = class_names
        self.resampled_from = resampled_from
        self._model = freeze(model)
        self._maps = maps or model
        self._mean = _by_channel(mean if mean is not None else [0.0] * input_channels)
        self._std = _by_channel(std if std is not None else [1.0] * input_channels)
        self._bgr, self._multiple = bgr, multiple
        found = self._probe()
        self.strides = tuple(sorted(found))
        self.channels = tuple(found[stride][1] for stride in self.strides)
        self._order = [found[stride][0] for stride in self.strides]

    def to(self, device: torch.device) -> ModuleTeacher:
        """Move to a device and return itself."""
        self._model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def digest(self) -> str:
        """SHA-256 over names and bytes of all weights."""
        return weights_digest(self._model)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, confidence: bool = False, boxes: bool = False, predictions: bool = False
    ) -> TeacherOutput:
        """Look at (B, `input_channels`, H, W) images in [0, 1]; nothing but maps can be asked for."""
        maps = self._run(images)
        chosen = [maps[index] for index in self._order]
        return TeacherOutput(Features(cropped(chosen, self.strides, images.shape[2:]), self.strides))

    def _run(self, images: Tensor) -> list[Tensor]:
        images = padded(images.flip(1) if self._bgr else images, self._multiple)
        maps = self._maps((images - self._mean) / self._std)
        if not isinstance(maps, Iterable) or isinstance(maps, (Tensor, str)):
            found = f"a tensor of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
            raise IMAError(
                f"teacher={self.name}: gave {found} for a batch; expected a list or dictionary of (B, C, H, W) maps"
            )
        return list(maps.values() if isinstance(maps, Mapping) else maps)

    @torch.no_grad()
    def _probe(self) -> dict[int, tuple[int, int]]:
        """Return, for each stride, which of the maps it is and how many channels that has."""
        size = -(-PROBE_SIZE // self._multiple) * self._multiple
        try:
            maps = self._run(torch.full((1, self.input_channels, size, size), 0.5, device=self._mean.device))
        except IMAError:
            raise
        except Exception as error:
            raise IMAError(f"teacher={self.name}: cannot look at an image of {size} px ({one_line(error)})") from error
        return {stride_of(level, size, self.name): (index, level.shape[1]) for index, level in enumerate(maps)}


def stride_of(level: Any, size: int, name: str) -> int:
    """Return the stride of a map of a square image.

    Args:
        level: What the teacher gave as a map.
        size: Side of the image in pixels.
        name: The teacher's, for the message.

    Raises:
        IMAError: If it is no (B, C, H, W) tensor, or its cells do not divide the image.
    """
    if not isinstance(level, Tensor) or level.ndim != 4:
        found = f"shape {tuple(level.shape)}" if isinstance(level, Tensor) else type(level).__name__
        raise IMAError(f"teacher={name}: gave {found} as a feature map; expected a tensor (B, C, H, W)")
    rows, columns = level.shape[2:]
    if rows < 1 or rows != columns or size % rows:
        raise IMAError(
            f"teacher={name}: a feature map of {rows} x {columns} cells does not divide an image of {size} px; "
            "expected maps whose cells are a whole number of pixels wide, as a feature pyramid has"
        )
    return size // rows


def padded(images: Tensor, multiple: int) -> Tensor:
    """Extend images to the right and below, in letterbox grey, to a multiple of so many pixels."""
    height, width = images.shape[2:]
    right, below = -width % multiple, -height % multiple
    return pad(images, (0, right, 0, below), value=PAD) if right or below else images


def cropped(maps: Sequence[Tensor], strides: Sequence[int], size: Sequence[int]) -> tuple[Tensor, ...]:
    """Cut the cells of the padding off: a map keeps ceil(size / stride) rows and columns."""
    pairs = zip(maps, strides, strict=True)
    return tuple(level[:, :, : -(-size[0] // stride), : -(-size[1] // stride)] for level, stride in pairs)


def pyramid(grid: Tensor, finer: int, coarser: int) -> list[Tensor]:
    """Turn the one map of a single-scale network into a pyramid, finest level first.

    Finer levels are interpolated and hold nothing that the map does not; coarser ones are means of 2 x 2 cells. It is
    the pyramid of ViTDet (arXiv 2203.16527) without its trained layers, since a teacher is frozen.

    Args:
        grid: (B, C, H, W).
        finer: How many levels to add below, each with half the stride.
        coarser: How many levels to add above, each with twice the stride.
    """
    below = [interpolate(grid, scale_factor=2**i, mode="bilinear", align_corners=False) for i in range(finer, 0, -1)]
    above = [grid]
    for _ in range(coarser):
        above.append(avg_pool2d(above[-1], 2, ceil_mode=True))
    return [*below, *above]


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights of a model."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def freeze(model: Any) -> Any:
    """Switch a model to evaluation for good and stop its gradients."""
    return model.eval().requires_grad_(False)


def read_state(path: str, name: str) -> dict[str, Tensor]:
    """Read a file of weights without running code that it may carry.

    Args:
        path: Written by `torch.save`: a state dictionary, or one under "model" or "state_dict".
        name: The teacher's, for the message.

    Raises:
        IMAError: If it is missing, damaged, or holds something else.
    """
    check_plain(path, "ima_teacher_weights=")
    try:
        if Path(path).is_file():
            check_checkpoint(Path(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_content(state)
    except IMAError as error:
        raise IMAError(f"ima_teacher_weights={path}: {error}") from None
    except Exception as error:
        fault = "no such file" if isinstance(error, FileNotFoundError) else "damaged, or more than plain weights"
        raise IMAError(f"ima_teacher_weights={path}: {fault}; expected a state file for teacher={name}") from error
    for key in ("model", "state_dict"):
        state = state.get(key, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise IMAError(f"ima_teacher_weights={path}: no state dictionary inside, which teacher={name} needs")
    return dict(state)


def _by_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
