"""What the means of making the teacher's look and the loss cheap bring.

Of the teacher, batch norms fused, channels last and no head are added one after the other; inference mode, ONNX Runtime
and bfloat16 each alone to these three, and torch.compile to the first two. Of the loss, the light generator, the closed
form and the adapter inside it follow each other, and torch.compile is added to the first and to the second of them.

    python benchmarks/means.py                         # YOLO26n <- YOLO26m, 320 px, batch 8; writes results/means.json
    python benchmarks/means.py --teacher yolo26s.yaml --compile      # torch.compile too, which takes minutes

Every variant runs once a round, in turns; medians of seconds, and of each loss the MB that it keeps from its forward
pass for its backward one. Weights are random: they cost no time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from torch import Tensor

from ima_yolo import host
from ima_yolo.features import tap
from ima_yolo.files import write_json
from ima_yolo.losses import IMALoss
from ima_yolo.masks import Regions
from ima_yolo.speed.report import machine
from ima_yolo.speed.results import today
from ima_yolo.speed.rounds import alternate
from ima_yolo.speed.steps import teacher_file
from ima_yolo.teachers.half import is_native
from ima_yolo.teachers.module import freeze
from ima_yolo.teachers.yolo import LAYOUT, YOLOTeacher

OUTPUT = Path(__file__).parent / "results" / "means.json"
CPU = torch.device("cpu")
STUDENT = {8: 64, 16: 128, 32: 256}  # channels of YOLO26n's neck by stride
TEACHER = {8: 256, 16: 512, 32: 512}  # of YOLO26m's


def teacher_variants(path: Path, images: Tensor, compiles: bool = False) -> dict[str, Callable[[], Any]]:
    """The teacher's forward pass, variant by variant, as the head of this file tells.

    Args:
        path: Checkpoint.
        images: (B, 3, H, W).
        compiles: Whether torch.compile is tried too.
    """
    plain = freeze(host.load_model(path, "teacher")[0])
    fused = freeze(deepcopy(plain).fuse(verbose=False))
    turned = deepcopy(fused).to(memory_format=LAYOUT)
    head, levels = host.neck(turned)

    def run(model: Any, shown: Tensor) -> None:
        with torch.no_grad():
            model(shown)

    def stopped() -> None:
        with torch.no_grad(), tap(head, levels, stop=True):
            turned(images.contiguous(memory_format=LAYOUT))

    def inference() -> None:
        with torch.inference_mode(), tap(head, levels, stop=True):
            turned(images.contiguous(memory_format=LAYOUT))

    graph, half = YOLOTeacher(path), YOLOTeacher(path)
    graph.by_graph()
    half.by_half()
    found: dict[str, Callable[[], Any]] = {
        "as it was loaded": lambda: run(plain, images),
        "batch norms fused": lambda: run(fused, images),
        "channels last": lambda: run(turned, images.contiguous(memory_format=LAYOUT)),
        "no head": stopped,
        "inference mode in place of no_grad": inference,
        "by ONNX Runtime": lambda: graph(images),
        "in bfloat16" + ("" if is_native() else ", which this processor imitates"): lambda: half(images),
    }
    if compiles:
        compiled: Any = torch.compile(turned)
        found["compiled, with its head"] = lambda: run(compiled, images.contiguous(memory_format=LAYOUT))
    return found


def loss_variants(side: int, batch: int, compiles: bool = False) -> dict[str, Callable[[], Any]]:
    """The feature loss of three levels, forward and backward: from the costly reading to the default.

    Args:
        side: Of the images in pixels.
        batch: Images.
        compiles: Whether torch.compile is tried too.
    """
    rng = torch.Generator().manual_seed(0)

    def maps(channels: dict[int, int]) -> dict[int, Tensor]:
        sizes = {stride: (batch, width, side // stride, side // stride) for stride, width in channels.items()}
        return {stride: torch.randn(size, generator=rng) for stride, size in sizes.items()}

    seen = {stride: level.contiguous(memory_format=LAYOUT) for stride, level in maps(TEACHER).items()}
    own = {stride: level.requires_grad_(True) for stride, level in maps(STUDENT).items()}
    nothing = Regions(torch.zeros(0, 5), {})

    def variant(restore: str, closed: bool, fused: bool, compiled: bool = False) -> Callable[[], None]:
        levels = {stride: IMALoss(STUDENT[stride], TEACHER[stride], restore=restore, rng=rng) for stride in STUDENT}
        for level in levels.values():
            level.closed, level.fused = closed, fused
            level.centred_before = closed and level.centred_before
        calls: dict[int, Any] = {s: torch.compile(level) if compiled else level for s, level in levels.items()}

        def run() -> None:
            torch.stack([calls[s](own[s], seen[s], s, nothing) for s in calls]).mean().backward()

        return run

    found = {
        "generator of 3 x 3 at the teacher's width": variant("conv", closed=False, fused=False),
        "light generator, loss by its definition": variant("light", closed=False, fused=False),
        "loss in closed form": variant("light", closed=True, fused=False),
        "adapter inside the closed form": variant("light", closed=True, fused=True),
    }
    if compiles:
        found["loss by its definition, compiled"] = variant("light", closed=False, fused=False, compiled=True)
        found["loss in closed form, compiled"] = variant("light", closed=True, fused=False, compiled=True)
    return found


def kept(run: Callable[[], Any]) -> float:
    """MB that a loss keeps for its backward pass beside the student's and the teacher's maps, each storage once."""
    sizes: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        run()
    return sum(sizes.values()) / 1e6


def main() -> None:
    """Read the words, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="yolo26m.yaml", help="architecture or checkpoint")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="try torch.compile too")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    words = parser.parse_args()
    images = torch.rand(words.batch, 3, words.imgsz, words.imgsz)
    asked = {key: getattr(words, key) for key in ("imgsz", "batch", "rounds")}
    result: dict[str, Any] = {"machine": machine(CPU), "date": today(), "architecture": words.teacher, **asked}
    with TemporaryDirectory() as folder:
        path = teacher_file(words.teacher, Path(folder))
        parts = {
            "teacher": teacher_variants(path, images, words.compile),
            "loss": loss_variants(words.imgsz, words.batch, words.compile),
        }
        for part, variants in parts.items():
            seconds = alternate(
                variants, words.rounds, CPU, lambda line, part=part: print(f"{part}: {line}", flush=True)
            )
            result[part] = {name: median(values) for name, values in seconds.items()}
        result["loss keeps, MB"] = {name: kept(run) for name, run in parts["loss"].items() if "compiled" not in name}
    write_json(words.output, result)
    for part in parts:
        for name, value in result[part].items():
            print(f"{part}: {name}: {1000 * value:.0f} ms")
    for name, size in result["loss keeps, MB"].items():
        print(f"loss: {name}: keeps {size:.0f} MB")


if __name__ == "__main__":
    main()
