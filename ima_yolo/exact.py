"""Exact resume: what Ultralytics' checkpoint rounds or leaves out, so that a resumed run equals one never stopped."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from ima_yolo.errors import IMAError, one_line
from ima_yolo.files import read_text, replacing

NOT_YET = 10**9  # an accumulation that no step number reaches


class Cadence:
    """Keeps the rhythm of optimizer steps over a resume.

    Ultralytics accumulates gradients over several batches, counts on through epochs, and forgets both the count and the
    gradients when it resumes.
    """

    def __init__(self) -> None:
        """Start with a new training."""
        self.accumulate = 1
        self.batch: int | None = None  # number of the batch, counted from the first epoch
        self.last_step = -1
        self._waits = False

    def resume(self, last_step: int) -> None:
        """Go on from a training whose last step followed batch `last_step`."""
        self.last_step, self._waits = last_step, True

    @property
    def asked(self) -> int:
        """The accumulation that Ultralytics' loop is told: out of reach until the resumed rhythm has its next step."""
        if self._waits and self.batch is not None and self.batch - self.last_step < self.accumulate:
            return NOT_YET
        return self.accumulate

    def stepped(self) -> None:
        """Take note of a step."""
        self._waits = False
        if self.batch is not None:
            self.last_step = self.batch


def capture(model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, cadence: Cadence) -> dict[str, Any]:
    """Collect student, averaged student, optimizer, waiting gradients and the GPUs' random streams, unrounded.

    Args:
        model: The student in training.
        ema: Its average.
        optimizer: Of both student and adapters.
        cadence: The rhythm of steps.

    Returns:
        Tensors on the CPU and plain values.
    """
    student = unwrap_model(model)
    waits = cadence.batch is not None and cadence.batch != cadence.last_step
    named = student.named_parameters() if waits else ()
    return {
        "model": _copies(student.state_dict()),
        "ema": _copies(ema.state_dict()),
        "optimizer": _on_cpu(optimizer.state_dict()),
        "gradients": {name: _copy(value.grad) for name, value in named if value.grad is not None},
        "last_step": cadence.last_step,
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(
    saved: dict[str, Any], model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, cadence: Cadence
) -> None:
    """Put back what `capture` collected, but for the gradients, which Ultralytics clears before its first epoch.

    Raises:
        ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError or ValueError: If it is damaged.
    """
    if type(saved["last_step"]) is not int:  # which is counted with later
        raise TypeError("last_step is no number")
    unwrap_model(model).load_state_dict(saved["model"])
    ema.load_state_dict(saved["ema"])
    optimizer.load_state_dict(saved["optimizer"])
    cadence.resume(saved["last_step"])
    if saved["cuda"] and len(saved["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(saved["cuda"])


def restore_gradients(saved: dict[str, Any], model: nn.Module) -> None:
    """Put back the gradients that wait for the next step."""
    named = dict(unwrap_model(model).named_parameters())
    for name, gradient in saved["gradients"].items():
        named[name].grad = gradient.to(named[name].device)


def trim_results(file: Path, epochs: int) -> None:
    """Cut results.csv to the epochs that the checkpoint knows: a killed run may have written one more, or a part of it.

    Args:
        file: results.csv; may be missing.
        epochs: How many are done.

    Raises:
        IMAError: If it is no table, or too large.
    """
    if not file.exists():
        return
    try:
        header, *rows = list(csv.reader(io.StringIO(read_text(file), newline=None))) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise IMAError(f"{file}: cannot be read ({one_line(error)}); remove it") from error
    kept = [row for row in rows if len(row) == len(header) and row[0].strip().isdecimal() and int(row[0]) <= epochs]
    if len(kept) == len(rows):
        return
    with replacing(file) as partial:
        partial.write_text("".join(",".join(row) + "\n" for row in [header, *kept]), encoding="utf-8")


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)


def _copies(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: _copy(value) for name, value in state.items() if isinstance(value, Tensor)}


def _on_cpu(state: Any) -> Any:
    """Copy nested dictionaries and lists with every tensor on the CPU."""
    if isinstance(state, Tensor):
        return _copy(state)
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
