"""Whether a teacher still knows more than its student: how well both meet the labels, while training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed
from torchvision.ops import box_iou

from ima_yolo.features import Predictions

KNOWN = 0.01  # least merit of a student that is said to have overtaken somebody
AHEAD = 0.2  # lead over the student, as a share of the student's merit, from which a teacher counts fully


def merit(said: Predictions, boxes: Tensor, columns: Tensor) -> Tensor:
    r"""How well predictions meet labelled objects.

    .. math:: q_g = \max_a p_{a, c_g} \, IoU(b_a, g)

    for each object g of class c over the cells a: 1 where a cell is sure of the class and its box is the labelled one.
    The product is the alignment by which YOLO's own assignment ranks the cells of an object (arXiv 2108.07755, eq. 2,
    with both exponents 1).

    Args:
        said: Scores and boxes of every cell.
        boxes: (R, 5): image index, x1, y1, x2, y2 in pixels.
        columns: Where the scores have the class of each box, (R,).

    Returns:
        q, (R,) in [0, 1], in the order of the images.
    """
    found = [boxes.new_zeros(0)]
    for index in range(len(said.scores)):
        here = boxes[:, 0] == index
        scores = said.scores[index].index_select(1, columns[here]).sigmoid()  # (A, K) -> (A, r)
        if scores.shape[1]:
            found.append((scores * box_iou(said.boxes[index], boxes[here, 1:])).amax(dim=0))
    return torch.cat(found)


class Gate:
    r"""How much a teacher counts: fully while it is well ahead of its student, not at all once overtaken.

    .. math:: g = clip((q^T / q^S - 1) / 0.2, 0, 1)

    with the mean merits of teacher and student (see `merit`), both measured every few steps on the batch in hand and
    smoothed. A student that has come near its teacher would be held there: soft labels pull to what the teacher knows.

    Args:
        classes: Index in the teacher of each of the data's classes that it knows.
        every: Steps between two measurements.
        momentum: Share of the old merits that is kept at a measurement, in [0, 1).
    """

    def __init__(self, classes: Mapping[int, int], every: int = 5, momentum: float = 0.8) -> None:
        """Start open."""
        self._classes = dict(classes)
        self.every, self.momentum = every, momentum
        self.steps = 0
        self._reported = False
        self.student: float | None = None
        self.teacher: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether the next step measures."""
        return self.steps % self.every == 0

    @property
    def value(self) -> float:
        """Factor in [0, 1]."""
        if self.student is None or self.teacher is None:
            return 1.0
        lead = self.teacher - self.student
        return min(1.0, max(0.0, lead / (AHEAD * self.student))) if self.student > 0 else float(lead > 0)

    @torch.no_grad()
    def measure(self, student: Predictions, teacher: Predictions, boxes: Tensor, classes: Tensor) -> None:
        """Measure both on a batch.

        Args:
            student: What the student says of it.
            teacher: What the teacher says.
            boxes: The labels, (R, 5): image index, x1, y1, x2, y2 in pixels.
            classes: Their classes, (R,), as the data counts them.
        """
        classes = classes.long()
        known = torch.isin(classes, torch.tensor(list(self._classes), device=classes.device))
        boxes, own = boxes[known], classes[known]
        columns = torch.zeros(max(self._classes) + 1, dtype=torch.long, device=classes.device)
        columns[list(self._classes)] = torch.tensor(list(self._classes.values()), device=classes.device)
        merits = torch.stack([merit(student, boxes, own), merit(teacher, boxes, columns[own])])
        self._take(merits.sum(dim=1), len(own))

    def advance(self) -> None:
        """Count a step."""
        self.steps += 1

    def verdict(self, name: str, holds_features: bool = True) -> str | None:
        """Say once that the student has overtaken a teacher; None otherwise.

        Args:
            name: The teacher's.
            holds_features: Whether its features are held back as well as what its head says.
        """
        if self.value > 0.0 or self._reported or (self.student or 0.0) < KNOWN:
            return None
        self._reported = True
        what = "that teacher no longer counts" if holds_features else "its head no longer counts (its features do)"
        return (
            f"The student meets the labels better than {name} does ({self.student:.2g} against {self.teacher:.2g}, "
            f"score times IoU): {what} unless it gets ahead again"
        )

    def _take(self, merits: Tensor, objects: int) -> None:
        """Take note of the sums of both merits over this process's objects."""
        sums = torch.cat([merits.float(), merits.new_tensor([objects], dtype=torch.float)])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)  # all processes go on with the same factor
        student, teacher, count = sums.tolist()
        if not 0 < count < float("inf") or student != student or teacher != teacher:
            return
        student, teacher = student / count, teacher / count
        if self.student is None or self.teacher is None:
            self.student, self.teacher = student, teacher
        else:
            self.student += (1 - self.momentum) * (student - self.student)
            self.teacher += (1 - self.momentum) * (teacher - self.teacher)

    def state(self) -> dict[str, float | int | None]:
        """Plain values to go on from."""
        sides = {"student": self.student, "teacher": self.teacher}
        return {"steps": self.steps, "reported": int(self._reported), **sides}

    def load(self, state: Mapping[str, float | int | None]) -> None:
        """Go on from `state`."""
        self.steps, self._reported = int(state["steps"] or 0), bool(state["reported"])
        self.student, self.teacher = (
            None if state[side] is None else float(state[side] or 0.0) for side in ("student", "teacher")
        )
