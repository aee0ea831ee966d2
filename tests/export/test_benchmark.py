"""The benchmark: its ratio by hand, both sides on a real file, ours alone, and what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.export import bench_report, bench_worker
from ima_yolo.export import benchmark as bench
from ima_yolo.export.benchmark import OURS, THEIRS, Benchmark, Cell, run_benchmark
from ima_yolo.export.samples import sample_images

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9]]]).transpose(0, 2, 1)


def made_up() -> Benchmark:
    latency = {50: 10.0, 90: 11.0, 99: 12.0}
    ours = Cell(0, 1, OURS, latency, 100.0, 0.04, 0.3, 0.1, [10.0, 8.0, 20.0])
    theirs = Cell(0, 1, THEIRS, latency, 80.0, 0.2, 1.5, 0.5, [12.0, 12.0, 22.0])
    starts = {OURS: [0.5, 0.6, 0.7], THEIRS: [6.0, 6.0, 6.0]}
    machine = {"processor": "Abacus", "cores": 2, "load": [0.1], "system": "Linux", "versions": {"numpy": "2"}}
    return Benchmark(
        machine,
        {OURS: "a.onnx", THEIRS: "a.onnx"},
        (64, 64),
        [ours, theirs],
        starts,
        {OURS: 10**8, THEIRS: 10**9},
    )


def test_the_ratio_is_the_median_over_rounds() -> None:
    assert made_up().ratio(0, 1) == pytest.approx(1.2)  # 1.2, 1.5, 1.1
    assert made_up().ratio(2, 1) is None
    assert json.loads(made_up().to_json())["throughput_ratio"] == {"threads 0, batch 1": pytest.approx(1.2)}


def test_table_and_plot(tmp_path: Path) -> None:
    text = bench_report.table(made_up())
    assert "| default | 1 | ours | 10.0 | 11.0 | 12.0 | 100.0 | 0.30 | 0.10 | 4.0% | 1.20 (1.10 to 1.50) |" in text
    assert "| cold start, s | 0.60 | 6.00 | 0.100 |" in text
    assert "| peak memory, MB | 100 | 1000 | 0.100 |" in text
    assert bench_report.plot(made_up(), tmp_path / "x.png").stat().st_size > 5000


@pytest.mark.parametrize("sides", [(OURS,), (OURS, THEIRS)])
def test_every_row_of_a_table_has_as_many_columns_as_its_head(sides: tuple[str, ...]) -> None:
    whole = made_up()
    result = Benchmark(
        whole.machine,
        {side: whole.files[side] for side in sides},
        whole.imgsz,
        [cell for cell in whole.cells if cell.side in sides],
        {side: whole.cold_start[side] for side in sides},
        {side: whole.memory[side] for side in sides},
    )
    tables = [part.splitlines() for part in bench_report.table(result).split("\n\n")[1:]]
    assert [len(lines) for lines in tables] == [2 + len(sides), 4]
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1
        assert set(lines[1]) == set("|-:")


def test_the_legend_lies_beside_the_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    seen: list[bool] = []

    def save(figure: Figure, *_: object, **__: object) -> None:
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        seen.extend(box.overlaps(axes.get_window_extent()) for axes in figure.axes)

    monkeypatch.setattr(Figure, "savefig", save)
    bench_report.plot(made_up(), tmp_path / "x.png")
    assert seen == [False, False]


def test_a_side_counts_its_calls() -> None:
    calls: list[int] = []

    def read(batch: object) -> bench_worker.Parts:
        calls.append(len(batch))
        return bench_worker.Parts(1.0, 2.0, 3.0)

    answers = io.StringIO()
    request = json.dumps({"batch": 2, "seconds": 0}) + "\n"
    bench_worker.serve(read, [np.zeros((2, 2, 3))] * 3, io.StringIO(request * 2), answers)
    ready, first, second = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready["memory"] > 10**6
    assert (first["before"][0], first["inside"][0], first["after"][0]) == (1.0, 2.0, 3.0)
    assert len(first["total"]) == len(second["inside"]) == 3
    assert calls == [1, *[2] * 3, *[2] * 6]  # the first result, a warm-up once, and two times three calls


def test_runs_at_the_same_time_count_once() -> None:
    assert bench_worker.covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == pytest.approx(4.0)
    assert bench_worker.covered([]) == 0.0


def test_both_sides_in_turns(graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STARTS", 1)
    images = sample_images(tmp_path)
    result = run_benchmark(graphs["raw"], graphs["nms-free"], images, [1], [1, 2], 2, 0.05)
    assert [(c.threads, c.batch, c.side) for c in result.cells] == [
        (1, 1, OURS),
        (1, 1, THEIRS),
        (1, 2, OURS),
        (1, 2, THEIRS),
    ]
    assert all(0 < c.latency[50] <= c.latency[99] and 0 < c.outside < 1 and len(c.rounds) == 2 for c in result.cells)
    assert all(c.before > 0 and c.after > 0 for c in result.cells)
    assert result.files == {OURS: str(graphs["raw"]), THEIRS: str(graphs["nms-free"])}
    # These two hold on any machine, by far: the other side loads torch.
    assert result.cold_start[OURS][0] < result.cold_start[THEIRS][0] / 2
    assert result.memory[OURS] < result.memory[THEIRS] / 2


def test_files_of_two_sizes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, meta = {"small.onnx": (64, 96), "large.onnx": (128, 192)}, SimpleNamespace(task="detect")
    monkeypatch.setattr(bench, "Detector", lambda path, imgsz: SimpleNamespace(imgsz=sizes[str(path)], metadata=meta))
    for part, nothing in (("_setup", {}), ("_measure_starts", None)):
        monkeypatch.setattr(bench, part, lambda *_, nothing=nothing: nothing)
    small, large = Path("small.onnx"), Path("large.onnx")
    assert run_benchmark(small, small, [], [], [], 1, 1).files == {OURS: "small.onnx", THEIRS: "small.onnx"}
    named = {OURS: "small.onnx at 64x96 px", THEIRS: "large.onnx at 128x192 px"}
    assert run_benchmark(small, large, [], [], [], 1, 1).files == named


def test_ours_alone_where_ultralytics_is_absent(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "STARTS", 1)
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert main(["benchmark", f"model={toy(RAW)}", "rounds=1", "seconds=0.01", "threads=1", "output=out"]) == 0
    out = capsys.readouterr().out
    assert "| 1 | 1 | ours |" in out
    assert "ultralytics |" not in out.split("cold start")[0].split("images/s")[1]
    written = sorted(p.name for p in Path("out").iterdir())
    assert written == ["benchmark.json", "benchmark.md", "benchmark.png"]


def test_a_side_that_fails_is_named(
    toy: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    assert main(["benchmark", f"model={toy(RAW)}", f"source={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ima-yolo: benchmark: the side 'ours' stopped ({tmp_path / 'a.jpg'}: cannot be read")


def test_files_of_two_tasks_are_not_compared(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    rotated = toy(np.zeros((1, 7, 2)), "rotated.onnx", task="obb")
    assert main(["benchmark", f"model={toy(RAW)}", f"against={rotated}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ima-yolo: against={rotated}: of task obb, ")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model= is missing"),
        (["model=x.pt"], "model=x.pt: expected an .onnx file"),
        (["model=x.onnx"], "model=x.onnx: no such file"),
        (["model={toy}", "treads=2"], "did you mean 'threads'"),
        (["model={toy}", "batch=0"], "batch=0: expected whole numbers from 1 up"),
        (["model={toy}", "threads=2,9999"], "threads=(2, 9999): expected whole numbers from 0 to 1024"),
        (["model={toy}", "rounds=0"], "rounds=0"),
        (["model={toy}", "seconds=-1"], "seconds=-1"),
        (["model={toy}", "source=nowhere"], "source=nowhere"),
        (["model={toy}", "imgsz=64.5"], "imgsz=64.5: expected a multiple of 32"),
        (["model={toy}", "output={toy}"], "toy.onnx: expected a folder, a file is there"),
        (["model={toy}", "output={toy}/deeper"], "toy.onnx/deeper: expected a folder, a file is there"),
    ],
)
def test_bad_settings(
    words: list[str], message: str, toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(RAW)
    assert main(["benchmark", *(word.format(toy=model) for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_large_folder_is_read_in_part_and_a_size_reaches_the_side(
    toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima_yolo.export import benchmark as module

    (tmp_path / "many").mkdir()
    for number in range(200):
        (tmp_path / "many" / f"{number:03}.png").write_bytes(b"")
    seen: list[object] = []

    def stop(model: Path, against: Path, images: list[Path], *rest: object) -> None:
        seen.extend([images, rest[-1]])
        raise bench.IMAError("enough")

    monkeypatch.setattr(module, "run_benchmark", stop)
    words = [f"model={toy(RAW)}", f"source={tmp_path / 'many'}", "imgsz=64", "device=cpu"]
    assert main(["benchmark", *words]) == 2
    images, imgsz = seen
    assert [path.name for path in images] == [f"{number:03}.png" for number in range(0, 200, 4)]
    assert imgsz == 64


def test_another_size_of_a_dynamic_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ima_yolo.export import export_onnx

    monkeypatch.setattr(bench, "STARTS", 1)
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    path = export_onnx(checkpoint, tmp_path / "x.onnx", imgsz=96, dynamic=True).path
    result = run_benchmark(path, path, sample_images(tmp_path), [1], [1], 1, 0.01, 64)
    assert result.imgsz == (64, 64)
