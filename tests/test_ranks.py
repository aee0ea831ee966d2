"""Two processes that train together: the same student and adapters on both, and the gradients of one double batch.

Ultralytics' own loop starts several processes on GPUs alone: on a CPU its `world_size` is 0, whatever the environment
says. So these tests drive what it would wrap, the distilling student with its adapters inside, in two gloo processes
under `DistributedDataParallel` with Ultralytics' own arguments, and scale the loss by the number of processes as its
loop does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import distributed, nn
from ultralytics.cfg import get_cfg
from ima_yolo import host
from ima_yolo.assembly import build_distiller
from ima_yolo.attach import attach
from ima_yolo.config import Settings
from ima_yolo.pairing import fit_teachers, load_teachers

teacher, student, folder, rank, world, what = sys.argv[1:]
rank, world = int(rank), int(world)
torch.manual_seed(0)
torch.set_num_threads(1)
if world > 1:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{what}", rank=rank, world_size=world)
model, _ = host.load_model(student, "student")
model.train().requires_grad_(True)
model.args = get_cfg()
# Without masks of a rank's own, and without weights of instances, whose mean is that of a batch.
alike = {"ima_weight": 1.0, "ima_mask": "none", "ima_deflation": "none"}
settings = Settings(teacher=teacher, **(alike if what == "gradients" else {"ima_cls": 0.5, "ima_box": 0.5}))
seen = host.probe(model)
views = fit_teachers(settings, load_teachers(settings), seen.strides, 3, 64)
gains = {"cls": 0.5, "box": 7.5}
distiller = build_distiller(settings, views, seen, torch.device("cpu"), 0, rank, model.names, gains)
attach(model, distiller)
if what == "gradients":  # batch norms of half a batch have other statistics
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
wrapped = model
if world > 1:
    recent = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
    key = "forward_sync_buffers" if recent else "broadcast_buffers"
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True, **{key: False})
share = 4 // world
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
for step in range(1 if what == "gradients" else 4):
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(4, 3, 64, 64, generator=generator)[rank * share:(rank + 1) * share]
    batch = {"img": images, "batch_idx": torch.arange(share).float(), "cls": torch.full((share, 1), float(rank))}
    batch["bboxes"] = torch.tensor([[0.5, 0.5, 0.4, 0.4]]).repeat(share, 1)
    loss, items = wrapped(batch)
    loss = (loss[-1] if what == "gradients" else loss.sum()) * world
    optimizer.zero_grad()
    loss.backward()
    if what != "gradients":
        optimizer.step()
named = {name: (value.grad if what == "gradients" else value.detach()) for name, value in model.named_parameters()}
state = {"named": {name: value for name, value in named.items() if value is not None}, "weight": distiller.weight.value}
state["items"] = {name: float(value) for name, value in items.items()}
torch.save(state, f"{folder}/{what}-{rank}-of-{world}.pt")
if world > 1:
    distributed.destroy_process_group()
"""


@pytest.fixture
def ran(tiny_checkpoint: Callable[..., Path], lively_teacher: Path, tmp_path: Path) -> Callable[..., list[Any]]:
    """Run the script in a number of processes at a time and give what each saved."""

    def run(what: str, world: int) -> list[Any]:
        models = [str(lively_teacher), str(tiny_checkpoint())]
        words = [[*models, str(tmp_path), str(rank), str(world), what] for rank in range(world)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        running = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, *own], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for own in words
        ]
        for process in running:
            said, _ = process.communicate(timeout=200)
            assert process.returncode == 0, said.decode()[-3000:]
        files = [tmp_path / f"{what}-{rank}-of-{world}.pt" for rank in range(world)]
        return [torch.load(file, weights_only=True) for file in files]

    return run


def test_gradients_of_two_processes_are_those_of_one_with_the_double_batch(ran: Callable[..., list[Any]]) -> None:
    (one,) = ran("gradients", 1)
    first, second = ran("gradients", 2)
    assert any(name.startswith("ima.") for name in one["named"]), "the adapters have gradients"
    assert one["named"].keys() == first["named"].keys() == second["named"].keys()
    assert first["items"]["ima_loss"] != second["items"]["ima_loss"], "each process has images of its own"
    for name, expected in one["named"].items():
        assert torch.equal(first["named"][name], second["named"][name]), name
        largest = float(expected.abs().max())
        assert torch.allclose(first["named"][name], expected, rtol=1e-3, atol=1e-4 * max(largest, 1e-6)), name
    assert sum(float(value.abs().sum()) for value in one["named"].values()) > 0


def test_student_adapters_and_weight_stay_the_same_in_all_processes(ran: Callable[..., list[Any]]) -> None:
    """With masks of their own, the automatic weight and terms on the heads, over four steps."""
    first, second = ran("training", 2)
    assert first["weight"] == second["weight"] > 0
    assert first["items"] != second["items"]
    for name, value in first["named"].items():
        assert torch.equal(value, second["named"][name]), name
