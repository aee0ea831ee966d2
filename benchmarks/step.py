"""Time and memory of a training step: plain, with Ultralytics' own distillation, with ours.

    python benchmarks/step.py                                  # the pairs of the README, on the CPU or GPU at hand
    python benchmarks/step.py --pairs yolo26n:yolo26m --sizes 320 --rounds 5 --output benchmarks/results/step/cpu

Stop it at any time: the next call goes on with the pairs that have no result in the folder yet. A result of other
models, rounds, code or machine is measured anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ima_yolo.cli import read_options
from ima_yolo.speed.case import Case
from ima_yolo.speed.run import run

PAIRS = ("yolo26n:yolo26m", "yolo26n:yolo26s", "yolo26n:yolo26x", "yolo26s:yolo26l", "yolo26n:rtdetr-l")


def main() -> None:
    """Read the words and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=PAIRS, help="student:teacher, architectures or checkpoints")
    parser.add_argument("--sizes", nargs="+", type=int, default=[320, 640], help="sides of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds a case")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=None, help="folder; benchmarks/results/step/DEVICE if not given")
    parser.add_argument("--settings", nargs="*", default=[], help="keys beyond the defaults, such as ima_cls=0")
    parser.add_argument("--brief", action="store_true", help="no parts of the first case's step, and its memory once")
    words = parser.parse_args()
    settings = tuple(sorted(read_options(words.settings).items()))
    torch.set_num_threads(words.threads)
    folder = words.output or Path(__file__).parent / "results" / "step" / words.device
    pairs = [[_file(name) for name in pair.split(":")] for pair in words.pairs]
    cases = [Case(student, teacher, size, words.batch, settings) for size in words.sizes for student, teacher in pairs]
    device = torch.device(words.device)
    report = run(cases, device, words.rounds, folder, lambda line: print(line, flush=True), not words.brief)
    print(report.read_text(encoding="utf-8"))


def _file(name: str) -> str:
    return name if name.endswith((".pt", ".yaml")) else f"{name}.yaml"


if __name__ == "__main__":
    main()
