"""The summary table: numbers as they are, a dash for what is not known, and what was measured and how."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ima_yolo.summary import Row, _milliseconds, markdown, measure, table

TEACHER = Row("teacher", 0.5671, 0.8744, 9_466_341, 2.5234, 120.46, "cpu, batch 1")
STUDENT = Row("student", 0.1, 0.2996, 2_376_006, 0.12, 9.04, "cpu, batch 1")


def test_table_by_hand() -> None:
    assert table([TEACHER, STUDENT]).splitlines() == [
        "model    mAP50-95  mAP50  parameters  GFLOPs  ms/image (cpu, batch 1)",
        "-------  --------  -----  ----------  ------  -----------------------",
        "teacher     0.567  0.874   9,466,341    2.52                    120.5",
        "student     0.100  0.300   2,376,006    0.12                      9.0",
    ]


def test_markdown_by_hand() -> None:
    assert markdown([STUDENT]).splitlines() == [
        "| model | mAP50-95 | mAP50 | parameters | GFLOPs | ms/image (cpu, batch 1) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| student | 0.100 | 0.300 | 2,376,006 | 0.12 | 9.0 |",
    ]


def test_unknown_values_are_dashes_and_zero_is_not_unknown() -> None:
    assert table([Row("onnx")]).splitlines()[-1].split() == ["onnx", "-", "-", "-", "-", "-"]
    assert table([Row("bad", 0.0, 0.0, 0, 0.0, 0.0)]).splitlines()[-1].split() == [
        *("bad", "0.000", "0.000", "0", "0.00", "0.0")
    ]


def test_notes_become_footnotes_once() -> None:
    rows = [Row("a", note="other classes"), STUDENT, Row("b", note="other classes"), Row("c", note="old")]
    lines = table(rows).splitlines()
    assert [line.split("  ")[0] for line in lines[2:6]] == ["a [1]", "student", "b [1]", "c [2]"]
    assert lines[6:] == ["[1] other classes", "[2] old"]
    assert markdown(rows).splitlines()[-3:] == ["", "[1] other classes", "[2] old"]


def test_times_taken_in_different_ways_are_told_apart() -> None:
    lines = table([STUDENT, Row("gpu", milliseconds_per_image=1.0, timing="cuda, batch 1")]).splitlines()
    assert lines[0].endswith("ms/image")
    assert lines[-2:] == ["[1] time: cpu, batch 1", "[2] time: cuda, batch 1"]


def test_columns_line_up_whatever_their_width() -> None:
    lines = table([TEACHER, Row("a student with a long name", parameters=1), Row("x", note="n")]).splitlines()
    assert len({len(line) for line in lines[:-1]}) == 1


def test_size_is_that_of_the_deployed_network(tiny_data: Path, tmp_path: Path) -> None:
    """Ultralytics publishes 2.4 M parameters and 5.4 GFLOPs at 640 px for yolo26n; at 64 px it is a hundredth."""
    from ultralytics import YOLO

    YOLO("yolo26n.yaml").save(tmp_path / "n.pt")
    row = measure(tmp_path / "n.pt", tiny_data, 64, "80 classes", device="cpu")
    assert row.parameters is not None
    assert row.gflops is not None
    assert round(row.parameters / 1e6, 1) == 2.4
    assert row.gflops == pytest.approx(0.054, abs=0.001)


def test_accuracy_is_not_measured_on_other_classes(tiny_data: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    # The same names in another order are other classes too: an index would mean another thing.
    row = measure(tiny_checkpoint(names=("square", "disc", "triangle")), tiny_data, 64, "teacher", device="cpu")
    assert row.map50 is None
    assert row.map50_95 is None
    assert "other class names" in row.note
    assert row.milliseconds_per_image is not None
    assert row.milliseconds_per_image > 0


def test_the_time_of_an_image_is_that_of_the_network() -> None:
    import time
    from types import SimpleNamespace

    class Slow:
        device, backend = "cpu", SimpleNamespace()

        def __call__(self, image: object) -> None:
            time.sleep(0.02)

    class Quick(Slow):
        def __call__(self, image: object) -> None:
            turns.append(len(turns))
            time.sleep(0.002 if len(turns) % 6 else 0.1)  # the last of a turn, as if something else ran

    turns: list[int] = []
    slow, quick = _milliseconds([Slow(), Quick()], 32)
    assert 20 <= slow < 60
    assert 2 <= quick < 20
    assert len(turns) == 42, "one round to warm up, then six"


def test_measuring_gives_the_validators_accuracy_and_leaves_nothing(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils.metrics import Metric

    monkeypatch.setattr(Metric, "map", property(lambda _: 0.25))  # an untrained model would give 0 for both
    monkeypatch.setattr(Metric, "map50", property(lambda _: 0.75))
    row = measure(tiny_checkpoint(), tiny_data, 96, "student", device="cpu", batch=2, workers=0)
    assert (row.map50_95, row.map50, row.note, row.timing) == (0.25, 0.75, "", "cpu, batch 1")
    assert list(tmp_path.iterdir()) == []


def test_with_one_class_other_names_are_comparable(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The student of `single_cls=True` knows one class, its teacher several: the validator counts all as one."""
    from ultralytics.utils.metrics import Metric

    monkeypatch.setattr(Metric, "map", property(lambda _: 0.25))
    for names in (("item",), ("disc", "square", "triangle")):
        row = measure(tiny_checkpoint(names=names), tiny_data, 96, "model", device="cpu", workers=0, single_cls=True)
        assert (row.map50_95, row.note) == (0.25, "")


def test_measuring_leaves_the_checkpoint_as_it_was(tiny_data: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    before = tiny_checkpoint().read_bytes()
    measure(tiny_checkpoint(), tiny_data, 64, "student", device="cpu")
    assert tiny_checkpoint().read_bytes() == before


def test_a_trained_teacher_on_real_images(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "bccd"
    images = sorted((source / "images" / "val").iterdir())[:16]
    for kind, suffix in (("images", images[0].suffix), ("labels", ".txt")):  # a copy: Ultralytics writes beside labels
        (tmp_path / kind).mkdir()
        for image in images:
            name = f"{image.stem}{suffix}"
            shutil.copy(source / kind / "val" / name, tmp_path / kind / name)
    data = yaml.safe_load((source / "data.yaml").read_text()) | {
        "path": str(tmp_path),
        "train": "images",
        "val": "images",
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    row = measure(shared / "weights" / "bccd_yolo26s.pt", tmp_path / "data.yaml", 224, "teacher", device="cpu")
    assert row.map50_95 is not None
    assert row.map50 is not None
    assert 0.75 < row.map50 < 0.98
    assert 0.45 < row.map50_95 < 0.75
