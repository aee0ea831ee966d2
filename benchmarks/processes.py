"""Ultralytics' whole training loop in several gloo processes on a CPU, where it would take one GPU each.

    torchrun --nproc_per_node 2 benchmarks/processes.py teacher=a.pt student=b.pt data=my.yaml epochs=2

Several nodes are emulated by as many calls at the loopback address (--nnodes 2 --node_rank 0 or 1 --master_addr
127.0.0.1 --master_port 29500). In four places the loop of Ultralytics 8.4.190 asks for a GPU: in engine/trainer.py
`__init__` sets world_size to 0 for a CPU (line 188), `_setup_ddp` takes the GPU that LOCAL_RANK names, `_setup_train`
names it to DistributedDataParallel, which takes no device for a model on a CPU; and the final evaluation asks CUDA
which one is current (engine/validator.py, line 193). `OnCPU` steps around these and changes nothing else. Each process
leaves what it ended with in `rank-N.pt` in the run's folder, for the tests to compare.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch
from torch import distributed, nn
from ultralytics.engine import validator
from ultralytics.utils import DEFAULT_CFG, LOCAL_RANK, RANK, WORLD_SIZE
from ultralytics.utils.torch_utils import unwrap_model

from ima_yolo.preflight import student_kind
from ima_yolo.trainer import TRAINERS, processes

PROCESSES = 2  # that are started where none of them is there yet, as Ultralytics starts one for each GPU


class OnCPU:
    """Stands before a trainer of ours among the bases."""

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: Any = None, _callbacks: Any = None) -> None:
        super().__init__(cfg, overrides, _callbacks)  # type: ignore[call-arg]
        self.world_size = PROCESSES if LOCAL_RANK == -1 else processes(1)
        self.ddp = LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        if not distributed.is_initialized():
            limit = timedelta(seconds=240)  # of a process that has died, the others hear late
            distributed.init_process_group("gloo", timeout=limit, rank=RANK, world_size=WORLD_SIZE)

    def _setup_train(self) -> None:
        with _without_devices():
            super()._setup_train()  # type: ignore[misc]

    def final_eval(self) -> None:
        """Evaluate on the CPU."""
        with _evaluating():
            super().final_eval()  # type: ignore[misc]

    def _do_train(self) -> None:
        self.add_callback("on_train_start", _note_start)  # type: ignore[attr-defined]
        super()._do_train()  # type: ignore[misc]
        torch.save(_outcome(self), self.save_dir / f"rank-{RANK}.pt")  # type: ignore[attr-defined]


def _note_start(trainer: Any) -> None:
    trainer.begun = {"state": trainer.distiller.state(), "masks": torch.get_rng_state()}


def _outcome(trainer: Any) -> dict[str, Any]:
    """What the processes may differ in, and what not."""
    student = unwrap_model(trainer.model)
    stream = trainer._unlabelled
    return {
        "student": {name: value.detach().clone() for name, value in student.state_dict().items()},
        "distiller": trainer.distiller.state(),
        "begun": trainer.begun["state"],
        "settings": trainer.settings.model_dump(mode="json"),
        "teachers": trainer._teacher_digest,
        "world_size": distributed.get_world_size(),
        "batch": trainer.train_loader.batch_size,
        "unlabelled": None if stream is None else stream.next(),
        "passes": None if stream is None else stream._loader.sampler.epoch,
    }


@contextmanager
def _without_devices() -> Iterator[None]:
    plain: Any = nn.parallel.DistributedDataParallel
    nn.parallel.DistributedDataParallel = lambda model, device_ids=None, **rest: plain(model, **rest)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        nn.parallel.DistributedDataParallel = plain  # type: ignore[misc]


@contextmanager
def _evaluating() -> Iterator[None]:
    plain: Any = validator.AutoBackend
    backend = validator.get_torch_device_backend
    validator.AutoBackend = lambda *args, **rest: plain(*args, **{**rest, "device": torch.device("cpu")})
    validator.get_torch_device_backend = lambda _: SimpleNamespace(current_device=lambda: 0)
    try:
        yield
    finally:
        validator.AutoBackend, validator.get_torch_device_backend = plain, backend


CLASSES: dict[str, Any] = {
    kind: type(f"CPU{trainer.__name__}", (OnCPU, trainer), {"__module__": __name__})
    for kind, trainer in TRAINERS.items()
}
globals().update({made.__name__: made for made in CLASSES.values()})  # other processes find them by name


def make(options: dict[str, Any]) -> Any:
    """A trainer of the student's task."""
    return CLASSES[student_kind(options)](overrides=options)


def main() -> None:
    """Read the words and train; several trainings in the same processes have `--` between them."""
    from ima_yolo.cli import read_options

    calls: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        if word == "--":
            calls.append([])
        else:
            calls[-1].append(word)
    for words in calls:
        make(read_options(words)).train()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
