"""Results in a folder: when one is taken, and what else may lie there."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.speed.case import ARMS, LONGEST, Case
from ima_yolo.speed.results import STEP_CODE, is_result, key_of, read_results
from ima_yolo.speed.run import run

CPU = torch.device("cpu")
PACKAGE = Path(__file__).parents[2] / "ima_yolo"
NEVER_IN_A_STEP = {"errors", "lists", "random_streams", "plain_files", "plain_yaml"}
NEVER_IN_A_STEP |= {"architecture", "pickles", "quantized", "trust"}  # while a model is opened and built, as the others
OLD = Path(__file__).parents[2] / "benchmarks" / "results" / "step" / "cpu"


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run cases into a folder, with figures of nobody; return the lines that were said."""
    seconds = {name: [1.0] for name in (*ARMS, "teacher", "teacher as run")}
    monkeypatch.setattr("ima_yolo.speed.run.peak", lambda *_: {"peak": 1.0, "added": 1.0})
    monkeypatch.setattr("ima_yolo.speed.run.alternate", lambda *_: seconds)
    monkeypatch.setattr("ima_yolo.speed.run.build", lambda *_: {})
    monkeypatch.setattr("ima_yolo.speed.run.time_parts", lambda *_: {"step": {"a": 1.0}, "alone": {"b": 1.0}})

    def measured(*cases: Case, rounds: int = 1) -> list[str]:
        said: list[str] = []
        run(cases, CPU, rounds, tmp_path / "out", said.append)
        return [line for line in said if ": memory of " not in line]

    return measured


@pytest.fixture
def pair(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Case:
    files = [tmp_path / name for name in ("best.pt", "teacher.pt")]
    for file, config in zip(files, ("yolo26n-few.yaml", "yolo26s-few.yaml"), strict=True):
        shutil.copy(tiny_checkpoint(config, seed=1), file)
    return Case(*map(str, files))


def test_a_result_is_taken_for_the_same_alone(
    measure: Callable[..., list[str]],
    pair: Case,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint that was trained on, other rounds, threads and code lie under the same name of a file."""
    assert measure(pair) == []
    assert "measured already" in measure(pair)[0]
    assert "differs in its rounds, and is measured anew" in measure(pair, rounds=2)[0]
    shutil.copy(tiny_checkpoint("yolo26n-few.yaml", seed=2), pair.student)
    assert "differs in its contents, and is measured anew" in measure(pair, rounds=1)[0].replace(
        "contents, rounds", "contents"
    )
    moved = tmp_path / "b"
    moved.mkdir()
    shutil.copy(pair.student, moved)
    elsewhere = Case(str(moved / "best.pt"), pair.teacher)
    assert "differs in its models, and" in measure(elsewhere)[0].replace(", rounds", "")
    monkeypatch.setattr("ima_yolo.speed.results.machine", lambda _: {"device": "cpu", "threads": "99"})
    assert "differs in its machine, and" in measure(elsewhere)[0]
    monkeypatch.setattr("ima_yolo.speed.results.code_version", lambda: {"ima_yolo": "other"})
    assert "differs in its code, and" in measure(elsewhere)[0]
    assert "measured already" in measure(elsewhere)[0]
    text = (tmp_path / "out" / "step.md").read_text()
    assert "\n- device cpu; threads 99; code other; measured 20" in text


def test_a_brief_result_is_measured_anew_where_depth_is_asked(
    measure: Callable[..., list[str]], pair: Case, tmp_path: Path
) -> None:
    """The first case alone is measured in depth; a deep result serves where a brief one would do."""
    other = Case(pair.student, pair.teacher, imgsz=64)
    assert measure(pair, other) == []
    assert "differs in its depth, and is measured anew" in measure(other)[0]
    assert all("measured already" in line for line in (*measure(other), *measure(pair, other)))
    files = [tmp_path / "out" / f"{case.file_name}.json" for case in (pair, other)]
    found = [json.loads(file.read_text()) for file in files]
    assert [len(one["memory"]["ours"]["peaks"]) for one in found] == [5, 5]
    assert (tmp_path / "out" / "step.md").read_text().count("## Parts of our step") == 2


def test_a_fault_in_the_parts_costs_nothing_of_the_rest(
    measure: Callable[..., list[str]], pair: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise IMAError("in the parts")

    with monkeypatch.context() as patch:
        patch.setattr("ima_yolo.speed.run.time_parts", fail)
        with pytest.raises(IMAError, match="in the parts"):
            measure(pair)
    assert is_result(json.loads((tmp_path / "out" / f"{pair.file_name}.json").read_text()))
    assert "differs in its depth" in measure(pair)[0], "and then it is whole"


def test_each_machine_is_named_with_its_cases(
    measure: Callable[..., list[str]], pair: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(pair)
    monkeypatch.setattr("ima_yolo.speed.results.machine", lambda _: {"device": "gpu"})
    measure(Case(pair.student, pair.teacher, batch=4))
    text = (tmp_path / "out" / "step.md").read_text()
    assert "- best <- teacher, 320 px, batch 4: device gpu; code" in text
    assert "- best <- teacher, 320 px, batch 8: device cpu" in text


def test_what_else_lies_there_is_named_first_and_left_out(
    measure: Callable[..., list[str]], pair: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "foreign.json").write_text('{"case": "x"}')
    (out / "list.json").write_text("[1]")
    (out / "damaged.json").write_bytes(b'{"case": \xff')
    (out / f"{pair.file_name}.json").write_text("{")
    (out / "folder.json").mkdir()
    begun: list[int] = []
    monkeypatch.setattr("ima_yolo.speed.run.peak", lambda *_: (begun.append(1), {"peak": 1.0, "added": 1.0})[1])
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        assert not begun, "after something was measured"

    run([pair], CPU, 1, out, say)
    assert ": memory of " in said.pop()
    assert [line.split(": ")[0] for line in said] == [str(file) for file in sorted(out.glob("*.json"))]
    assert all("damaged, or no result of this benchmark; left out" in line and "\n" not in line for line in said)
    assert is_result(json.loads((out / f"{pair.file_name}.json").read_text())), "measured anew"
    assert (out / "foreign.json").read_text() == '{"case": "x"}'


def test_what_is_no_result() -> None:
    good = {"case": "a", "seconds": {n: {"median": 1.0, "spread": 0.0} for n in ("plain", "ours", "teacher")}}
    good |= {"ratios": {"ours / floor": 1.0}, "machine": {}}
    assert is_result(good)
    bad: list[Any] = [None, [], {}, {**good, "case": 3}, {**good, "ratios": {"a": "b"}}, {**good, "seconds": {}}]
    bad += [{**good, "seconds": {**good["seconds"], "ours": 1.0}}, {**good, "machine": None}]
    bad += [{**good, "seconds": {**good["seconds"], "ours": {"median": 1.0}}}]
    assert not any(is_result(one) for one in bad)


def test_results_of_earlier_versions_are_read() -> None:
    assert len(read_results(OLD, lambda line: pytest.fail(line))) == len(list(OLD.glob("*.json"))) > 0


def test_a_long_setting_is_shortened(measure: Callable[..., list[str]], pair: Case, tmp_path: Path) -> None:
    long, other = (Case(pair.student, pair.teacher, settings=(("ima_x", "é" * 300 + end),)) for end in "ab")
    assert long.file_name != other.file_name, "though they begin alike"
    assert len(long.file_name.encode()) <= LONGEST + 17
    measure(long)
    assert "measured already" in measure(long)[0]
    assert Case("a.yaml", "b.yaml", settings=(("ima_unlabelled", "x/y"),)).file_name == "a-b-320-8-unlabelled-x_y"
    slash, line = (Case(pair.student, pair.teacher, settings=(("ima_x", value),)) for value in ("x/y", "x_y"))
    measure(slash)
    assert "differs in its case" in measure(line)[0], "their files share a name"


def test_the_code_version_covers_every_file_that_steps() -> None:
    for pattern in STEP_CODE:
        assert list(PACKAGE.glob(pattern)), pattern
    covered = {file for pattern in STEP_CODE for file in PACKAGE.glob(pattern)}
    listing = "import sys, ima_yolo.speed.memory; print([m for m in sys.modules if m.startswith('ima_yolo.')])"
    found = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    names = [name.removeprefix("ima_yolo.").replace(".", "/") for name in ast.literal_eval(found.stdout)]
    files = {PACKAGE / f"{name}.py" for name in names if (PACKAGE / f"{name}.py").exists()}
    assert PACKAGE / "merit.py" in files & covered
    rooms = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in files - covered}
    assert rooms <= NEVER_IN_A_STEP


def test_the_key_is_read_back_as_it_is(pair: Case) -> None:
    key = key_of(Case("yolo26n.yaml", pair.teacher), CPU, 3)
    assert key == json.loads(json.dumps(key)), "as it is read back"
    assert key["rounds"] == 3


@pytest.mark.parametrize("under", ["", "below"])
def test_a_file_is_no_folder(under: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    output = file / under
    assert main(["benchmark", "train", "student=yolo26n", "teacher=yolo26s.yaml", f"output={output}"]) == 2
    assert capsys.readouterr().err == f"ima-yolo: output={output}: expected a folder, a file is there\n"
    assert file.read_text() == "kept"
