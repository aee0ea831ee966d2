"""What a step costs: its parts timed, and the texts held against what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from committed import REPOSITORY

STEPS = {
    "yolo26n-yolo26m-320-8": "YOLO26n <- YOLO26m, default",
    "yolo26n-yolo26m-320-8-box-0-cls-0": "features alone (`ima_cls=0 ima_box=0`)",
    "yolo26n-yolo26m-320-8-batch_share-0.5": "half of each batch (`ima_batch_share=0.5`)",
    "yolo26n-yolo26m-320-8-teacher_runtime-onnx": "teacher by ONNX Runtime (`ima_teacher_runtime=onnx`)",
    "yolo26n-yolo26m-320-8-teacher_runtime-torch": "teacher in single precision (`ima_teacher_runtime=torch`)",
    "yolo26n-yolo26m-320-4": "batch 4",
    "yolo26n-yolo26m-320-16": "batch 16",
    "yolo26n-yolo26s-320-8": "YOLO26n <- YOLO26s",
    "yolo26n-yolo26x-320-8": "YOLO26n <- YOLO26x",
    "yolo26s-yolo26l-320-8": "YOLO26s <- YOLO26l",
    "yolo26n-rtdetr-l-320-8": "YOLO26n <- RT-DETR-l, which Ultralytics' cannot",
    "yolo26n-yolo26m-640-8": "YOLO26n <- YOLO26m, 640 px",
    "yolo26n-yolo26s-640-8": "YOLO26n <- YOLO26s, 640 px",
    "yolo26n-yolo26x-640-8": "YOLO26n <- YOLO26x, 640 px",
    "yolo26s-yolo26l-640-8": "YOLO26s <- YOLO26l, 640 px",
    "yolo26n-rtdetr-l-640-8": "YOLO26n <- RT-DETR-l, 640 px",
}


def test_the_cost_of_a_step_as_measured_is_what_the_readme_shows() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    files = list((REPOSITORY / "benchmarks" / "results" / "step" / "cpu").glob("*.json"))
    assert {file.stem for file in files} == set(STEPS)
    for file in files:
        ratios = json.loads(file.read_text())["ratios"]
        keys = ("ours / builtin", "ours / floor", "memory")
        cells = [f"{ratios[key]:.2f}" if key in ratios else "" for key in keys]
        row = " | ".join([STEPS[file.stem], *cells]).replace("|  |", "| |").rstrip(" |")
        assert f"| {row} |" in readme
    said = " ".join(readme.split())
    found = {file.stem: json.loads(file.read_text())["ratios"] for file in files}
    small, large = (found[f"yolo26n-yolo26m-{side}-8"] for side in (320, 640))
    times, memory = ([f"{case[key]:.2f}" for case in (small, large)] for key in ("ours / builtin", "memory"))
    opening = f"| {times[0]} of the time of Ultralytics' `distill_model=` at 320 px, {times[1]} at 640 px,"
    assert f"{opening} in {memory[0]} and {memory[1]} of its memory" in said
    with_one = REPOSITORY / "benchmarks" / "results" / "step" / "one-thread" / "yolo26n-yolo26m-320-8.json"
    ratios = json.loads(with_one.read_text())["ratios"]
    keys = ("ours / builtin", "ours / floor", "memory")
    by_graph = ", ".join(f"{found['yolo26n-yolo26m-320-8-teacher_runtime-onnx'][key]:.2f}" for key in keys)
    assert f"which keeps the second aim alone ({by_graph});" in said
    row = ", ".join(f"{ratios[key]:.2f}" for key in ("ours / builtin", "ours / floor"))
    assert f"the first row is {row} and {ratios['memory']:.2f} (" in said
    alike = {stem: f"{ratios['ours / floor as run']:.2f}" for stem, ratios in found.items()}
    own = alike.pop("yolo26n-yolo26m-320-8")
    rest = f"{min(alike.values())} and {max(alike.values())}"
    assert f"the first row takes {own} times as long, and each of the others between {rest}." in said
    assert f"with one thread {ratios['ours / builtin']:.2f} and {ratios['memory']:.2f} at 320 px" in said
    assert f"with one thread not ({ratios['memory']:.2f}, one process)" in said
    assert ratios["memory"] > 0.9


def test_memory_is_of_as_many_processes_as_the_readme_says() -> None:
    results = REPOSITORY / "benchmarks" / "results" / "step"
    several = {"yolo26n-yolo26m-320-8", "yolo26n-yolo26m-640-8"}
    for file in results.glob("*/*.json"):
        counts = {len(arm["peaks"]) for arm in json.loads(file.read_text())["memory"].values()}
        assert counts == ({5} if file.parent.name == "cpu" and file.stem in several else {1}), file


def test_a_step_keeps_its_aims_and_grows_no_faster_than_its_teacher() -> None:
    from ima_yolo.speed.growth import exponents, points

    folder = REPOSITORY / "benchmarks" / "results" / "step" / "cpu"
    for size in (320, 640):
        ratios = json.loads((folder / f"yolo26n-yolo26m-{size}-8.json").read_text())["ratios"]
        assert ratios["ours / builtin"] <= 0.70
        assert ratios["ours / floor"] <= 1.08
        assert ratios["memory"] <= {320: 0.9, 640: 0.92}[size], "the aim is 0.9, and missed at 640 px: README"
    growing = {"batch": "yolo26n-yolo26m-320-*", "batch and image": "yolo26n-yolo26m-*", "all": "*"}
    for what, fixed in {**growing, "teacher, 320 px": "*-320-8", "teacher, 640 px": "*-640-8"}.items():
        files = [file for file in folder.glob(f"{fixed}.json") if file.stem.count("-") == 3 or "rtdetr-l" in file.stem]
        drawn = [logarithms(file) for file in files]
        assert len(drawn) >= 3
        slope = np.polyfit(*zip(*drawn, strict=True), 1)[0]
        assert slope <= 1, f"{what}: no worse than linear"
        if what == "all":
            readme = " ".join((REPOSITORY / "README.md").read_text().split())
            assert len(list(folder.glob("*.json"))) - len(drawn) == 4
            assert f"(to the power of {slope:.2f} over all rows but the four with settings;" in readme
            rows = [json.loads(file.read_text()) for file in folder.glob("*.json")]
            found = [grown["ours"] for *_, grown in exponents(points(rows))]
            assert f"to the next, {min(found):.2f} to {max(found):.2f};" in readme


def logarithms(file: Path) -> tuple[float, float]:
    """Of the seconds of the teacher's own forward pass, and of what a step takes beyond a plain one."""
    seconds = {name: found["median"] for name, found in json.loads(file.read_text())["seconds"].items()}
    return math.log(seconds["teacher"]), math.log(seconds["ours"] - seconds["plain"])


def test_each_means_is_timed() -> None:
    from means import loss_variants

    variants = loss_variants(64, 1)
    for run in variants.values():
        run()
    assert len(variants) == 4
    measured = json.loads((REPOSITORY / "benchmarks" / "results" / "means.json").read_text())
    losses, looks = list(measured["loss"].values()), measured["teacher"]
    keeps = list(measured["loss keeps, MB"].values())
    readme = (REPOSITORY / "benchmarks" / "README.md").read_text()
    for name, size in measured["loss keeps, MB"].items():
        assert f"| {name} | {1000 * measured['loss'][name]:.0f} | {size:.0f} |" in readme
    said, order = " ".join(readme.split()), [f"{1000 * seconds:.0f}" for seconds in looks.values()]
    loaded, fused, turned, headless, inference, graph, half, _ = order
    assert f"takes {loaded} ms as it was loaded, then {fused} with batch norms fused, {turned} with channels" in said
    assert f"{headless} without its head; from there, each alone, {graph} by ONNX Runtime and {half} in" in said
    assert f"inference mode in place of `no_grad` brought nothing ({inference})" in said
    default = REPOSITORY / "benchmarks" / "results" / "step" / "cpu" / "yolo26n-yolo26m-320-8.json"
    step = json.loads(default.read_text())["parts"]["step"]
    share = (step["mask, forward"] + step["generator, forward"]) / step["whole step"]
    assert f"mask and generator together take {100 * share:.1f}% of a step" in said
    assert losses[0] > losses[1] > losses[2]
    assert losses[3] < 1.1 * losses[2], "the default is no slower"
    assert keeps[3] < keeps[2] / 2, "and keeps less than half"
    assert looks["in bfloat16"] < 0.6 * looks["no head"]
    assert looks["by ONNX Runtime"] < looks["no head"]
