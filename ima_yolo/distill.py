"""The distiller: shows a batch to the teacher, compares the maps, weighs the term, and watches that it teaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ima_yolo.criterion import BOX_TERM, SCORE_TERM, HeadTerms, Panel
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions
from ima_yolo.finite import Guard, Suspects
from ima_yolo.host import UNLABELLED
from ima_yolo.labels import boxes_of, regions_of, some_images
from ima_yolo.masks import Regions, go_on
from ima_yolo.teachers import Observed, TeacherOutput
from ima_yolo.teachers.view import View
from ima_yolo.weighting import AutoWeight, FixedWeight, Watch, schedule

Look = Callable[[Tensor, bool], tuple[Features, Predictions | None]]  # images, whether the head is asked
RESTED = TeacherOutput(Features((), ()))  # what a teacher says that is not asked
TERM = "ima_loss"  # contains "loss", so that it is plotted, and fits the 11 characters of the progress bar


class Distiller(nn.Module):
    """Turns a batch and the student's maps into a weighted distillation term.

    The teachers are held beside the module tree: their weights are neither trained nor saved.

    Args:
        teachers: Frozen teachers on the training device, fitted to the student.
        criterion: The feature losses.
        weight: Fixed or automatic.
        rng: Source of the masks.
        kind: Schedule of the weight, see `ima_yolo.weighting.schedule`.
        off: Share of the training at its end without distillation.
        confidence: Whether the losses need the teacher's confidence.
        teacher_boxes: Whether the objects are the teacher's detections instead of the labels.
        heads: Terms on what the heads of student and each teacher say, None for a teacher without; empty for none.
        share: Share of the images of each batch that the teachers see, in (0, 1].
        every: Of so many batches the teachers see one, the first, and its terms count so many times.
    """

    def __init__(
        self,
        teachers: Sequence[View],
        criterion: Panel,
        weight: AutoWeight | FixedWeight,
        rng: torch.Generator,
        kind: str = "constant",
        off: float = 0.0,
        confidence: bool = False,
        teacher_boxes: bool = False,
        heads: Sequence[HeadTerms | None] = (),
        share: float = 1.0,
        every: int = 1,
    ) -> None:
        """Keep the parts; distillation is fully on until told otherwise."""
        super().__init__()
        self.teachers = tuple(teachers)
        self.criterion = criterion
        self.weight = weight
        self._rng = rng
        self._kind, self._off = kind, off
        self._confidence, self._teacher_boxes = confidence, teacher_boxes
        self._factor = schedule(kind, 0.0, off)
        self.heads = tuple(heads) or (None,) * len(self.teachers)
        self._share = share
        self._every, self._batches = every, 0
        self._guard = Guard()
        for stride, weights in criterion.weights():
            self._guard.of_weights(f"{TERM} at the adapter of stride {stride}", weights)
        self._watches = {name: Watch(name) for name in self._names}

    def set_progress(self, progress: float) -> None:
        """Set the schedule to a share of the training that is done, in [0, 1]."""
        factor = schedule(self._kind, progress, self._off)
        if factor == 0.0 < self._factor:
            LOGGER.info("Distillation is off from this epoch on")
        self._factor = factor
        for watch in self._watches.values():
            watch.restart()

    @property
    def effective_weight(self) -> float:
        """Weight times schedule and gates, as last used; the mean over batches where the teachers do not see each."""
        return self._factor * sum(self._feature_shares) * (self.weight.value or 0.0)

    def forward(
        self,
        batch: dict[str, Any],
        student: Features,
        task: Tensor,
        predicted: Callable[[], Predictions],
        look: Look | None = None,
        observed: Observed | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted terms of a batch.

        Args:
            batch: Ultralytics' batch: img (B, 3, H, W) in [0, 1], bboxes (R, 4) centre and size as shares of the
                image, batch_idx (R,).
            student: The student's neck maps of this batch.
            task: The student's own loss, scalar; in the graph of the maps where `measures` says so.
            predicted: Gives what the student's head says of this batch.
            look: Gives what the student makes of the batch's images without labels, if it carries any.
            observed: What `observe` gave for this batch; the teachers look at it now if None.

        Returns:
            The sum to add, scalar, and its terms detached, by name. All are 0 while distillation is off; the teacher is
            not run then. A term that is NaN or infinite is left out, and 0.

        Raises:
            IMAError: If a term stays so for many steps in a row.
        """
        observed = observed or self.observe(batch)
        terms = {} if observed is None else self._terms(batch, student, task, predicted, look, observed)
        self._batches += 1
        nothing = task.detach().new_zeros(())
        total = sum(terms.values(), start=nothing)
        return total, {name: terms.get(name, nothing).detach() for name in self._names}

    def observe(self, batch: dict[str, Any]) -> Observed | None:
        """Show a batch to the teachers, or a part of it; None while distillation is off or without images.

        Before the student's forward pass this costs less memory than after it: what the teachers need on the way is
        free again before the student's activations are kept.
        """
        images = batch["img"]
        if not self.is_on or not len(images):
            return None
        chosen, count = None, max(1, round(self._share * len(images)))
        if count < len(images):
            chosen = torch.randperm(len(images), generator=self._rng, device=self._rng.device)[:count]
            images = images[chosen]
        asked = self.asked
        is_idle = all(wanted is None for wanted in asked)
        return Observed([] if is_idle else self._ask(images, asked), chosen, asked)

    @property
    def asked(self) -> list[tuple[bool, bool, bool] | None]:
        """Whether each teacher is asked for confidence, boxes and predictions in this step; None where it rests."""
        asked: list[tuple[bool, bool, bool] | None] = []
        for head, share in zip(self.heads, self._feature_shares, strict=True):
            speaks = head is not None and (head.is_due or head.factor > 0)
            asked.append((self._confidence, self._teacher_boxes, speaks) if speaks or share > 0 else None)
        return asked

    def _ask(self, images: Tensor, asked: Sequence[tuple[bool, bool, bool] | None]) -> list[TeacherOutput]:
        return [
            RESTED if wanted is None else teacher(images, *wanted)
            for teacher, wanted in zip(self.teachers, asked, strict=True)
        ]

    @property
    def measures(self) -> bool:
        """Whether this step's weight is measured by the gradients of task and term at the maps."""
        return self.is_on and self._compares_maps and self.weight.is_due

    @property
    def is_on(self) -> bool:
        """Whether any term counts in this batch."""
        is_due = self._batches % self._every == 0
        return is_due and self._factor != 0.0 and (self._compares_maps or bool(self._head_names))

    @property
    def _compares_maps(self) -> bool:
        return any(self._feature_shares)

    @property
    def _feature_shares(self) -> list[float]:
        """Share of each teacher in the feature loss as far as its gate lets it: 1 in all while all are open.

        All are 0 where the loss has no weight.
        """
        if self.weight.value == 0.0:
            return [0.0] * len(self.heads)
        gates = [1.0 if head is None else head.feature_factor for head in self.heads]
        return [share * gate for share, gate in zip(self.criterion.shares, gates, strict=True)]

    @property
    def _names(self) -> tuple[str, ...]:
        return (TERM, *self._head_names)

    @property
    def _head_names(self) -> tuple[str, ...]:
        return next((head.names for head in self.heads if head is not None), ())  # the same for every teacher

    def _terms(
        self,
        batch: dict[str, Any],
        student: Features,
        task: Tensor,
        predicted: Callable[[], Predictions],
        look: Look | None,
        observed: Observed,
    ) -> dict[str, Tensor]:
        seen, chosen = observed.outputs, observed.chosen
        shares = self._feature_shares  # before the gates move: what this step measures was decided by them
        if not any(shares):
            self.weight.forget()
        if not seen:
            self._advance()
            return {}
        whole, share = student, 1.0
        own = predicted() if observed.has_heads else None
        if chosen is not None:
            share = len(chosen) / len(batch["img"])
            batch, student = some_images(batch, chosen), student.of_images(chosen)
            own = None if own is None else own.of_images(chosen)
        self._weigh_heads(own, seen, batch)
        plain = self._compare(student, own, seen, [regions_of(batch, output) for output in seen], shares)
        # measured without the other images, which the task loss does not see
        with self._guard.resting():
            weight = self.weight(task, plain[TERM], whole.maps, share) if TERM in plain else 0.0
        weight *= sum(shares)  # the ratio is that of gates that are open
        factors = {name: self._factor * self._every * (weight if name == TERM else 1.0) for name in plain}
        mixed = self._mixed(plain, batch, look, observed, shares) if look and plain else plain
        terms = {name: term * factors[name] for name, term in mixed.items()}
        named = [(view.name, out.features, out.predictions) for view, out in zip(self.teachers, seen, strict=True)]
        suspects = Suspects(student, own, named, self.criterion.strides, self._guard.levels)
        terms = self._guard.passing(terms, lambda name: suspects.explain(name == TERM), self.criterion.parameters())
        for name in terms:  # without the automatic weight, which moves a term that itself stands still
            moved_by = whole.maps if name == TERM or own is None else (own.scores, own.boxes)
            with self._guard.resting():
                if warning := self._watches[name].see(mixed[name], moved_by):
                    LOGGER.warning(warning)
        return terms

    def _compare(
        self,
        student: Features,
        own: Predictions | None,
        seen: Sequence[TeacherOutput],
        regions: Sequence[Regions],
        shares: Sequence[float],
    ) -> dict[str, Tensor]:
        """Compare what student and teachers make of the same images: the terms by name, without their weights.

        Args:
            student: Maps of the images.
            own: What its head says of them, if a teacher's was asked.
            seen: What each teacher makes of them.
            regions: The objects, as each teacher sees them.
            shares: Share of each teacher in the feature loss, see `_feature_shares`.
        """
        terms: dict[str, Tensor] = {}
        own = None if own is None else self._guard.of_predictions((SCORE_TERM, BOX_TERM), own, student)
        student = self._guard.of_maps(TERM, student)
        for head, output, share in zip(self.heads, seen, self._head_shares, strict=True):
            if head is not None and own is not None and output.predictions is not None and head.factor > 0:
                for name, term in head(own, output.predictions).items():
                    terms[name] = terms.get(name, 0.0) + term * (share * head.factor)
        if any(shares):  # last: what it keeps would lie beside what the others need
            parts = [share / sum(shares) for share in shares]
            maps = [output.features for output in seen]
            terms[TERM] = self.criterion(student, maps, regions, self._guard.note, parts)
        return terms

    @property
    def _head_shares(self) -> list[float]:
        """Share of each teacher in the terms on the heads: 1 in all, of which one of features alone takes nothing."""
        taken = [0.0 if head is None else share for head, share in zip(self.heads, self.criterion.shares, strict=True)]
        return [share / (sum(taken) or 1.0) for share in taken]

    def _weigh_heads(self, own: Predictions | None, seen: Sequence[TeacherOutput], batch: dict[str, Any]) -> None:
        """Let each teacher's gate see what student and teacher said of the labelled images."""
        for head, view, output in zip(self.heads, self.teachers, seen, strict=True):
            if head is None or head.gate is None:
                continue
            if head.gate.is_due and own is not None and output.predictions is not None:
                head.gate.measure(own, output.predictions, boxes_of(batch), batch["cls"].view(-1))
                if (line := head.verdict(view.name)) is not None:
                    LOGGER.info(line)
        self._advance()

    def _advance(self) -> None:
        """Count a step for every gate."""
        for head in self.heads:
            if head is not None and head.gate is not None:
                head.gate.advance()

    def _mixed(
        self,
        terms: dict[str, Tensor],
        batch: dict[str, Any],
        look: Look,
        observed: Observed,
        shares: Sequence[float],
    ) -> dict[str, Tensor]:
        """Mean of each term over the labelled images and those without labels."""
        images = batch[UNLABELLED]
        seen = self._ask(images, observed.asked)
        nothing = images.new_zeros(0, 5)
        regions = [Regions(nothing if out.boxes is None else out.boxes, out.confidence or {}) for out in seen]
        others = self._compare(*look(images, observed.has_heads), seen, regions, shares)
        labelled, unlabelled = len(batch["img"]), len(images)
        return {
            name: (term * labelled + others[name] * unlabelled) / (labelled + unlabelled)
            for name, term in terms.items()
        }

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` goes on."""
        adapters = {name: value.detach().cpu().clone() for name, value in self.criterion.state_dict().items()}
        gates = [head.gate.state() for head in self.heads if head is not None and head.gate is not None]
        own = {"adapters": adapters, "weight": self.weight.state(), "gates": gates}
        return {**own, "batches": self._batches, "rng": self._rng.get_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        try:
            self.criterion.load_state_dict(state["adapters"])
        except RuntimeError as error:
            names = ", ".join(teacher.name for teacher in self.teachers)
            raise IMAError(
                f"the run's adapters do not fit {names} or this version: resume with the teacher and the "
                "version that it was started with"
            ) from error
        self.weight.load(state["weight"])
        self._batches = int(state.get("batches", 0))
        gates = [head.gate for head in self.heads if head is not None and head.gate is not None]
        for gate, kept in zip(gates, state.get("gates", []), strict=False):  # none in runs of earlier versions
            gate.load(kept)
        if state["rng"].shape == self._rng.get_state().shape:
            go_on(self._rng, state["rng"].cpu())
        else:
            LOGGER.warning("The run goes on on another kind of device, whose random masks differ")
