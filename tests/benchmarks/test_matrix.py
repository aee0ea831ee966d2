"""The parts of `benchmarks/matrix.py`; the rows themselves are run by hand, since each downloads gigabytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from matrix import FAST, OUTPUT, PACKAGES, REPOSITORY, ROWS, bounds, counts, matrix, pins, table
from packaging.requirements import Requirement

from ima_yolo.host import TESTED

SAID = "....\n== slowest ==\n1.0s call x\n3 failed, 120 passed, 2 skipped, 1 warning in 30.51s (0:00:30)\n"


class Machine:
    """Notes the commands and answers as pip and pytest would; one step can fail."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.commands = failing, []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.commands.append(list(command))
        line = " ".join(command)
        said = "torch==2.6.0\nultralytics==8.4.190\n" if "pip list" in line else SAID
        return int(bool(self.failing) and self.failing in line), said


def test_the_lowest_versions_are_those_of_the_project() -> None:
    asked = bounds()
    assert asked.keys() == set(PACKAGES)
    lowest = pins("lowest", asked)
    assert f"ultralytics=={'.'.join(map(str, TESTED[0]))}" in lowest
    assert all("==" in pin for pin in lowest)
    assert pins("newest", asked) == [str(asked[name]) for name in PACKAGES]
    assert [pin for pin in pins("lowest torch", asked) if "==" in pin] == ["torch==2.6", "torchvision==0.21"]


def test_a_package_without_a_lowest_version_is_named(tmp_path: Path) -> None:
    text = (REPOSITORY / "pyproject.toml").read_text().replace('"onnxruntime>=1.19"', '"onnxruntime"')
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ValueError, match="onnxruntime has no lowest version"):
        bounds(tmp_path / "pyproject.toml")


def test_the_tests_of_a_row_are_there() -> None:
    assert all((REPOSITORY / name).exists() for name in FAST)


def test_pytest_s_last_line_is_read() -> None:
    assert counts(SAID) == {"failed": 3, "passed": 120, "skipped": 2}
    assert counts("no tests ran\n") == {}


def test_rows_are_run_once_and_written_one_by_one(tmp_path: Path) -> None:
    first = Machine(failing="onnxruntime==")
    found = matrix(["newest", "lowest onnxruntime"], tmp_path, first)
    assert [result["failed"] for result in found] == [None, "install"]
    assert found[0]["versions"] == {
        "ultralytics": "8.4.190",
        "torch": "2.6.0",
        "torchvision": "none",
        "onnxruntime": "none",
    }
    assert not any(Path(command[-1]).exists() for command in first.commands if "venv" in command), "tidied up"
    second = Machine()
    found = matrix(list(ROWS)[:2], tmp_path, second)
    assert len(second.commands) == 3, "the newest row has a result, and the other comes to its versions"
    assert found[1]["as"] == "newest"
    assert found[1]["tests"] == found[0]["tests"]
    assert [result["row"] for result in found] == ["newest", "lowest ultralytics", "lowest onnxruntime"]
    written = (tmp_path / "matrix.md").read_text()
    assert written == table(found)
    used = ".".join(map(str, sys.version_info[:3]))
    assert f"| lowest onnxruntime | {used} |  |  |  |  |  (failed: install) |" in written
    third = Machine()
    assert matrix(["lowest onnxruntime"], tmp_path, third, again=True)[2]["failed"] is None
    fourth = Machine()
    found = matrix(["newest", "lowest ultralytics"], tmp_path, fourth, again=True)
    assert "as" not in found[0], "an old result of the same versions is of other tests"
    assert found[1]["as"] == "newest"
    assert len(fourth.commands) == 3 + len(FAST) + 3


def test_a_file_of_tests_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    (found,) = matrix(["newest"], tmp_path, Machine(failing=FAST[1]))
    assert found["failed"] == FAST[1]
    assert found["tests"] == {"failed": 3 * len(FAST), "passed": 120 * len(FAST), "skipped": 2 * len(FAST)}


def test_commands_are_of_the_environment(tmp_path: Path) -> None:
    machine = Machine()
    matrix(["newest"], tmp_path, machine)
    made = machine.commands[0][-1]
    assert all(command[0] == f"{made}/bin/python" for command in machine.commands[1:])
    assert machine.commands[1][-1] == f"{REPOSITORY}[test]"


def test_the_readme_has_the_table_that_was_measured() -> None:
    """With the versions that pyproject.toml asks for now: a bound that moves needs a new run."""
    results = json.loads((OUTPUT / "matrix.json").read_text(encoding="utf-8"))
    assert (OUTPUT / "matrix.md").read_text(encoding="utf-8") == table(results)
    assert table(results) in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [result["row"] for result in results] == list(ROWS)
    asked = bounds()
    for result in results:
        assert result["failed"] is None
        assert not result["tests"].keys() & {"failed", "error", "errors"}
        for pin in map(Requirement, pins(result["row"], asked)):
            assert pin.specifier.contains(result["versions"][pin.name]), f"{result['row']}: {pin}"
