"""Where the time of our step goes: parts clocked inside real steps, which add up to it, and others timed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils.torch_utils import autocast

from ima_yolo import host
from ima_yolo.features import Features, Predictions, tap
from ima_yolo.labels import regions_of
from ima_yolo.speed.case import Case
from ima_yolo.speed.clock import clocked
from ima_yolo.speed.rounds import alternate
from ima_yolo.speed.steps import Step

TEACHER = "teacher, as our step asks it"
REST_OF_OURS = "guard, weighting and the rest of ours, forward"
REST = "rest"
WHOLE = "whole step"


def time_parts(
    case: Case, device: torch.device, teacher: Path, rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Time the parts of our step.

    Args:
        case: Models and sizes.
        device: Where.
        teacher: Checkpoint of the teacher.
        rounds: How often, besides a first round that is not counted.
        say: Receives a line a round.

    Returns:
        Median seconds, by name: "step", parts clocked inside a step, periodic ones by their share, which add up to
        "whole step" but for the difference between a sum of medians and the median of a sum; and "alone", what was
        timed outside of a step on its maps. On a GPU each part is waited for: the whole is longer than a step is.
    """
    step = clocked_step(case, device, teacher)
    alone = build_alone(Step(case, "ours", device, teacher))
    before = len(step.history)
    seconds = alternate({WHOLE: step, **alone}, rounds, device, say)
    wholes = seconds.pop(WHOLE)
    found = [counted(done, step.periods) for done in step.history[before + 1 :]]
    names = list(dict.fromkeys(name for each in found for name in each))
    parts = {name: median(each.get(name, 0.0) for each in found) for name in names}
    rest = median(whole - sum(each.values()) for whole, each in zip(wholes, found, strict=True))
    return {
        "step": {**parts, REST: rest, WHOLE: median(wholes)},
        "alone": {name: median(values) for name, values in seconds.items()},
    }


def counted(done: Mapping[str, float], periods: Mapping[str, int]) -> dict[str, float]:
    """Seconds of a step's parts, of periodic ones their share, under a name that says so."""
    return {
        f"{name}, 1/{periods[name]} of it" if name in periods else name: seconds / periods.get(name, 1)
        for name, seconds in done.items()
    }


def clocked_step(case: Case, device: torch.device, teacher: Path) -> Step:
    """A step of ours whose parts are clocked, after its first, in which it builds the task's loss."""
    step = Step(case, "ours", device, teacher)
    step()
    student: Any = step.model
    distiller = student.ima
    clock = step.clock
    clocked(distiller, "observe", TEACHER, clock)
    clocked(student, "predict", "student's forward pass", clock)
    clocked(student.criterion, "__call__", "the task's own loss", clock)
    clocked(distiller, "forward", REST_OF_OURS, clock)
    for head in distiller.heads:
        if head is not None:
            clocked(head, "__call__", "terms on the heads, forward", clock)
    for member in distiller.criterion.members:
        for level in member.levels.values():
            if getattr(level, "fused", False):
                clocked(level, "hide", "mask, forward", clock)
                clocked(level.generator, "forward", "generator, forward", clock)
                clocked(level, "compare_restored", "adapter and comparison in one, forward", clock)
            else:
                clocked(level, "forward", "feature loss with adapter, mask and generator, forward", clock)
    clocked(step, "backward", "backward pass, of everything", clock)
    clocked(step, "optimize", "clipping, optimizer and average", clock)
    return step


def build_alone(step: Step) -> dict[str, Callable[[], Any]]:
    """Build what is timed outside of a step, on its maps, in the precision that it runs in.

    Args:
        step: Of ours.

    Returns:
        By name: the student with and without taps; the teacher up to the neck, and with its head; the feature
        loss, and the terms on the heads where they are on, with their backward pass.
    """
    student: Any = step.model
    distiller, images = student.ima, step.batch["img"]
    head, levels = host.neck(student)
    (view,), (asked,) = distiller.teachers, distiller.asked

    def precisely(action: Callable[[], Any]) -> Any:
        with autocast(step.half, device=step.device.type):
            return action()

    def tapped() -> Sequence[Tensor]:
        with tap(head, levels) as found:
            student(images)
        return found.maps or []

    own = Features.of_image([level.detach().requires_grad_(True) for level in precisely(tapped)], images.shape[2])
    seen = precisely(lambda: view(images, *(asked or ())))
    regions = regions_of(step.batch, seen)
    criterion = distiller.criterion.members[0]
    looked: dict[str, Callable[[], Any]] = {
        "student's forward pass, no gradient": lambda: student(images),
        "the same with taps": tapped,
        "teacher to its neck": lambda: view(images),
        **({"teacher with its head": lambda: view(images, predictions=True)} if view.teacher.predicts else {}),
    }
    learnt = {"feature loss": lambda: criterion(own, seen.features, regions), **_of_heads(distiller, view, images)}
    return {
        **{name: _looking(precisely, action) for name, action in looked.items()},
        **{f"{name}, forward and backward": _learning(precisely, action) for name, action in learnt.items()},
    }


def _of_heads(distiller: Any, view: Any, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    (terms,) = distiller.heads
    if terms is None:
        return {}
    said = view(images, predictions=True).predictions
    own = Predictions(said.scores.clone().requires_grad_(True), said.boxes.clone().requires_grad_(True))
    return {"terms on the heads": lambda: torch.stack(list(terms(own, said).values())).sum()}


def _looking(precisely: Callable[..., Any], action: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            precisely(action)

    return run


def _learning(precisely: Callable[..., Any], action: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        precisely(action).backward()

    return run
