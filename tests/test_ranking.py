from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ima_yolo.cli import main
from ima_yolo.ranking import rank, table, validation_images


def test_a_network_is_most_like_itself(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    student = lively(tiny_checkpoint(), tmp_path / "student.pt")
    other = lively(tiny_checkpoint("yolo26s.yaml", seed=1), tmp_path / "other.pt")
    found = rank(str(student), tiny_data, [str(other), str(student), "torchvision:fcos_resnet50_fpn"], 96, 4)
    assert found[0].name == str(student)
    assert found[0].cka == pytest.approx(1.0, abs=1e-3)
    assert found[0].gap == pytest.approx(0.0, abs=1e-3)
    by_name = {candidate.name: candidate for candidate in found}
    assert by_name[str(other)].cka < 0.99
    assert by_name[str(other)].megabytes > 2 * by_name[str(student)].megabytes
    assert by_name[str(other)].accuracy is not None
    assert by_name["torchvision:fcos_resnet50_fpn"].accuracy is None
    assert all(candidate.gap_aligned < candidate.gap or candidate.gap < 1e-3 for candidate in found)
    assert len(table(found).splitlines()) == 2 + 3


def test_validation_images_are_square_and_rgb(tiny_data: Path) -> None:
    images = validation_images(tiny_data, 64, 3)
    assert images.shape == (3, 3, 64, 64)
    assert 0 <= images.min() < images.max() <= 1


def test_the_command_prints_a_table_and_draws_a_plot(
    tiny_data: Path, lively_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"student={lively_teacher}", f"data={tiny_data}", f"candidates={lively_teacher}", "imgsz=64", "images=2"]
    assert main(["teachers", *words, f"output={tmp_path / 'plot.png'}"]) == 0
    out = capsys.readouterr().out
    assert "| teacher | mAP50-95 | CKA |" in out
    assert "not measured yet" in out
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "student= is missing"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "image=3"], "'image' is not a setting"),
        (["student=yolo26n.yaml", "data=gone.yaml", "candidates=a.pt"], "data=gone.yaml: no data set"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "images=0"], "images=0: expected a whole number"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "output=no/x.png"], "output=no"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teachers", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
