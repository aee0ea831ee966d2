"""What is measured: a pair of models at one size, and what Ultralytics' own distillation asks of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.modules import head as heads
from ultralytics.nn.tasks import yaml_model_load

from ima_yolo import host
from ima_yolo.errors import IMAError

ARMS = ("plain", "builtin", "ours")
CLASSES = 80  # of models that are built here; a checkpoint keeps its own
LONGEST = 150  # bytes of a file's name; systems take 255


@dataclass(frozen=True)
class Case:
    """A pair of models at one size.

    Attributes:
        student: Architecture (.yaml) or checkpoint (.pt).
        teacher: The same.
        imgsz: Side of the images in pixels.
        batch: Images a step.
        settings: Our keys beyond their defaults.
    """

    student: str
    teacher: str
    imgsz: int = 320
    batch: int = 8
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no single step shows.

        Raises:
            IMAError: If the teacher would not see every batch.
        """
        if (every := dict(self.settings).get("ima_every", 1)) != 1:
            raise IMAError(
                f"ima_every={every} is not measured: one step of {every} costs what is measured without it, the others "
                "what a plain step does"
            )

    @property
    def name(self) -> str:
        """Name in tables."""
        changed = "".join(f", {key}={value}" for key, value in self.settings)
        return f"{Path(self.student).stem} <- {Path(self.teacher).stem}, {self.imgsz} px, batch {self.batch}{changed}"

    @property
    def file_name(self) -> str:
        """Name of its file; the end of a long one is a digest of the whole."""
        changed = "".join(f"-{key.removeprefix('ima_')}-{value}" for key, value in self.settings)
        whole = f"{Path(self.student).stem}-{Path(self.teacher).stem}-{self.imgsz}-{self.batch}{changed}"
        name = whole.replace("/", "_").encode("utf-8", "replace")  # of a setting that is a path
        if len(name) <= LONGEST:
            return name.decode()
        digest = hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:16]
        return f"{name[:LONGEST].decode(errors='ignore')}-{digest}"

    @cached_property
    def builtin_takes(self) -> bool:
        """Whether Ultralytics' own distillation takes this pair: two Detect heads, of as many levels."""
        (student, own), (teacher, seen) = head_of(self.student), head_of(self.teacher)
        return issubclass(student, heads.Detect) and issubclass(teacher, heads.Detect) and own == seen

    @property
    def arms(self) -> list[str]:
        """Those of `ARMS` that can be run."""
        return [arm for arm in ARMS if arm != "builtin" or self.builtin_takes]

    def class_names(self) -> dict[int, str]:
        """Classes of the labels, by index: those of the student's checkpoint, else of the teacher's, else numbers."""
        for role, name in (("student", self.student), ("teacher", self.teacher)):
            if name.endswith(".pt"):
                return host.class_names(host.load_model(name, role)[0])
        return {index: str(index) for index in range(CLASSES)}


def head_of(name: str) -> tuple[type[nn.Module], int]:
    """Class of the head of an architecture or a checkpoint, and the number of levels that feed it."""
    if name.endswith(".pt"):
        head = host.load_model(name, "teacher")[0].model[-1]
        kind, origin = type(head), head.f
    else:
        origin, _, named, *_ = yaml_model_load(name)["head"][-1]
        kind = getattr(heads, str(named))
    return kind, len(origin) if isinstance(origin, list) else 1
