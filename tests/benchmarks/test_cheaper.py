"""What cheaper looks, bfloat16 and the light generator cost in accuracy: the texts say what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from committed import REPOSITORY, three_seeds


def test_what_cheaper_ways_cost_in_accuracy_is_what_the_readme_says() -> None:
    folder = REPOSITORY / "benchmarks" / "results"
    names = {"without": "runtime/none", "with": "runtime/teacher_runtime-bf16"}
    names |= {way: f"cheaper/{way}" for way in ("half-of-each-batch", "every-second-batch", "fixed-images")}
    mean = {}
    for way, name in names.items():
        found = three_seeds(folder, name)
        mean[way] = f"{100 * sum(one.get('mAP50-95', one.get('map50_95')) for one in found) / 3:.1f}"
    said = " ".join((REPOSITORY / "benchmarks" / "README.md").read_text().split())
    assert f"had {mean['without']} mAP50-95 without a teacher, {mean['with']} with it" in said
    assert f"{mean['half-of-each-batch']} with half of each batch, and {mean['every-second-batch']} where" in said
    assert f"students had {mean['fixed-images']} there" in said


def test_ways_to_ask_a_teacher_less_often(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cheaper import WAYS, train

    from ima_yolo.distill import Distiller

    seen: list[int] = []
    original = Distiller._terms
    monkeypatch.setattr(Distiller, "_terms", lambda self, *args: (seen.append(1), original(self, *args))[1])
    models = {"model": str(tiny_checkpoint()), "teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1))}
    sizes = {"data": str(tiny_data), "imgsz": 64, "epochs": 1, "batch": 2, "nbs": 2, "device": "cpu", "cache": False}
    looks = {}
    for way in WAYS:
        found = train(way, 0, {**models, **sizes})
        assert found["settings"]["imgsz"] == 64
        assert 0 <= found["mAP50-95"] <= 1
        looks[way] = len(seen)
        seen.clear()
    assert looks == {"every batch": 4, "half of each batch": 4, "every second batch": 2, "fixed images": 4}


def test_what_bfloat16_costs_in_accuracy_is_what_the_readme_says() -> None:
    folder = REPOSITORY / "benchmarks" / "results" / "runtime"
    points: dict[str, list[float]] = {}
    for runtime in ("torch", "bf16"):
        found = three_seeds(folder, f"teacher_runtime-{runtime}")
        assert [one["settings"] for one in found] == [{"ima_teacher_runtime": runtime}] * 3
        points[runtime] = [100 * one["map50_95"] for one in found]
    mean = {runtime: f"{sum(of_seed) / 3:.1f}" for runtime, of_seed in points.items()}
    apart = ", ".join(f"{half - full:+.1f}" for half, full in zip(points["bf16"], points["torch"], strict=True))
    said = f"had {mean['bf16']} mAP50-95 in place of {mean['torch']} (three seeds: {apart};"
    assert said in (REPOSITORY / "README.md").read_text()


def test_what_the_generators_bring_is_what_the_text_says() -> None:
    from ima_yolo.experiment.statistics import paired

    folder = REPOSITORY / "benchmarks" / "results" / "generator"
    points: dict[str, dict[int, float]] = {}
    for arm in ("none", *(f"generator-{kind}" for kind in ("light", "conv", "none"))):
        found = three_seeds(folder, arm)
        points[arm.removeprefix("generator-") if arm != "generator-none" else "no generator"] = {
            one["seed"]: 100 * one["map50_95"] for one in found
        }
        assert {one["epochs"] for one in found} == {10}
    said = " ".join((REPOSITORY / "benchmarks" / "README.md").read_text().split())
    mean = {arm: f"{sum(of_seed.values()) / 3:.1f}" for arm, of_seed in points.items()}
    assert (
        f"students had {mean['light']} mAP50-95 with it, {mean['conv']} with the paper's, {mean['no generator']} with "
        f"a mask and no generator, and {mean['none']} without a teacher"
    ) in said
    gain = paired(points["light"], points["conv"])
    assert gain is not None
    assert f"{gain.mean:+.1f} points, 95% interval {gain.low:+.1f} to {gain.high:+.1f}" in said
