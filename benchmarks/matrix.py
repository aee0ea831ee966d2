"""Do the fast tests pass with the lowest and the newest versions that pyproject.toml allows?

    python benchmarks/matrix.py                        # every row: some 6 GB of disk and half an hour each
    python benchmarks/matrix.py --rows newest --keep   # one row; its environment stays

Each row is a fresh virtual environment with the package and its test extra; the tests run one file at a time. Stop it
at any time: the next call goes on with the rows that have no result; --again takes all anew. Writes results/matrix.json
and the table results/matrix.md, which the README repeats; exit code 1 if a row failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = Path(__file__).parent / "results"
PACKAGES = ("ultralytics", "torch", "torchvision", "onnxruntime")
ROWS: dict[str, tuple[str, ...]] = {
    "newest": (),
    "lowest ultralytics": ("ultralytics",),
    "lowest torch": ("torch", "torchvision"),  # each release of one fits one of the other
    "lowest onnxruntime": ("onnxruntime",),
    "lowest": PACKAGES,
}
"""Name of a row -> the packages that it takes at their lowest version; the others at their newest."""

FAST = (
    "tests/test_contract.py",
    "tests/test_host.py",
    "tests/test_features.py",
    "tests/test_distill.py",
    "tests/test_preflight.py",
    "tests/test_pickles.py",
    "tests/test_trust.py",
    "tests/test_trust_data.py",
    "tests/test_finite.py",
    "tests/test_config.py",
    "tests/losses",
    "tests/teachers/test_yolo.py",
    "tests/export/test_runtime.py",
    "tests/export/test_parity.py",
)
Run = Callable[[Sequence[str]], tuple[int, str]]


def bounds(project: Path = REPOSITORY / "pyproject.toml") -> dict[str, Requirement]:
    """Read what pyproject.toml asks of each package of the matrix.

    Raises:
        ValueError: If a package has no lowest version there.
    """
    content = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    lines = [*content["dependencies"], *content["optional-dependencies"]["train"]]
    found = {asked.name: asked for asked in map(Requirement, lines) if asked.name in PACKAGES}
    for name in PACKAGES:
        if name not in found or not any(part.operator == ">=" for part in found[name].specifier):
            raise ValueError(f"{project}: {name} has no lowest version")
    return found


def pins(row: str, asked: Mapping[str, Requirement]) -> list[str]:
    """What is given to pip for a row: exact lowest versions, and the allowed range of the others."""
    made = []
    for name in PACKAGES:
        lowest = next(part.version for part in asked[name].specifier if part.operator == ">=")
        made.append(f"{name}=={lowest}" if name in ROWS[row] else str(asked[name]))
    return made


def run_row(
    row: str, asked: Mapping[str, Requirement], environment: Path, run: Run, others: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Make an environment, install, and run the fast tests.

    Args:
        row: A key of `ROWS`.
        asked: As `bounds` returned it.
        environment: Folder of the environment, which is made.
        run: Runs a command and gives its exit code and what it printed.
        others: Results of other rows: where one came to the same versions, its tests are not run again.

    Returns:
        Versions, counts of the tests and seconds; "failed" names the first step that did, None if none. Where it is a
        file of tests, the others are run all the same.
    """
    start, python = time.monotonic(), str(environment / "bin" / "python")
    used = ".".join(map(str, sys.version_info[:3]))
    result: dict[str, Any] = {"row": row, "python": used, "failed": None, "versions": {}, "tests": {}}
    steps = {
        "environment": [sys.executable, "-m", "venv", "--clear", str(environment)],
        "install": [python, "-m", "pip", "install", "--upgrade", *pins(row, asked), "-e", f"{REPOSITORY}[test]"],
        "versions": [python, "-m", "pip", "list", "--format=freeze"],
        **{file: [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", file] for file in FAST},
    }
    for name, command in steps.items():
        code, said = run(command)
        if name == "versions":
            listed = dict(line.split("==", 1) for line in said.splitlines() if "==" in line)
            result["versions"] = {package: listed.get(package, "none") for package in PACKAGES}
            alike = [other for other in others if _versions_of(other) == _versions_of(result) and not other["failed"]]
            if alike and not code:
                result["tests"], result["as"] = dict(alike[0]["tests"]), alike[0].get("as", alike[0]["row"])
                break
        if name in FAST:
            for word, number in counts(said).items():
                result["tests"][word] = result["tests"].get(word, 0) + number
        if code:
            result["failed"], result["said"] = result["failed"] or name, said[-2000:]
            if name not in FAST:
                break
    return {**result, "seconds": round(time.monotonic() - start)}


def _versions_of(result: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
    return result["python"], result["versions"]


def counts(said: str) -> dict[str, int]:
    """Read the last line of pytest: how many passed, failed, were skipped."""
    last = next((line for line in reversed(said.splitlines()) if " in " in line), "")
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [f"| row | Python | {' | '.join(PACKAGES)} | tests |", "|---|" + "---|" * (len(PACKAGES) + 2)]
    for result in results:
        versions = " | ".join([result["python"], *(result["versions"].get(name, "") for name in PACKAGES)])
        tests = ", ".join(f"{number} {word}" for word, number in result["tests"].items())
        failed = f" (failed: {result['failed']})" if result["failed"] else ""
        failed += f" (those of '{result['as']}')" if result.get("as") else ""
        lines.append(f"| {result['row']} | {versions} | {tests}{failed} |")
    return "\n".join(lines) + "\n"


def matrix(rows: Sequence[str], output: Path, run: Run, keep: bool = False, again: bool = False) -> list[Any]:
    """Run the rows that have no result yet, and write after each.

    Args:
        rows: Keys of `ROWS`.
        output: Folder of the results.
        run: As in `run_row`.
        keep: Leave the environments where they are.
        again: Run rows that have a result, too.

    Returns:
        All results there are, in the order of `ROWS`.
    """
    from ima_yolo.files import read_json, replacing, write_json

    asked, file = bounds(), output / "matrix.json"
    known = {result["row"]: result for result in (read_json(file) if file.exists() else [])}
    fresh = [] if again else list(known.values())  # results of the tests as they are now
    for row in rows:
        if row in known and not again:
            print(f"{row}: has a result", flush=True)
            continue
        environment = Path(mkdtemp(prefix="ima-yolo-matrix-"))
        print(f"{row}: {' '.join(pins(row, asked))} in {environment}", flush=True)
        try:
            known[row] = run_row(row, asked, environment, run, fresh)
            fresh.append(known[row])
        finally:
            if not keep:
                shutil.rmtree(environment, ignore_errors=True)
        results = [known[name] for name in ROWS if name in known]
        write_json(file, results)
        with replacing(output / "matrix.md") as partial:
            partial.write_text(table(results), encoding="utf-8")
        print(f"{row}: {known[row]['failed'] or 'passed'}, {known[row]['seconds']} s", flush=True)
    return [known[name] for name in ROWS if name in known]


def _run(command: Sequence[str]) -> tuple[int, str]:
    environment = {**os.environ, "YOLO_AUTOINSTALL": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Read the words and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--keep", action="store_true", help="leave the environments where they are")
    parser.add_argument("--again", action="store_true", help="run rows that have a result, too")
    words = parser.parse_args()
    results = matrix(words.rows, words.output, _run, words.keep, words.again)
    print(table(results))
    return 1 if any(result["failed"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
