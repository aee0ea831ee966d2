"""The wheel that users install: everything inside `ima_yolo`, nothing beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import distribution, requires
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ("ima_yolo", "cfg", "export")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", "wheels"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=tree, check=True)
    return zipfile.ZipFile(next((tree / "wheels").glob("ima_yolo-*.whl")))


def test_every_source_and_recipe_is_inside_the_package(wheel: zipfile.ZipFile) -> None:
    expected = {"ima_yolo/py.typed"}
    for folder in SOURCES:
        inside = "ima_yolo" if folder == "ima_yolo" else f"ima_yolo/{folder}"
        files = [file for suffix in ("py", "yaml", "html") for file in (REPOSITORY / folder).rglob(f"*.{suffix}")]
        expected |= {f"{inside}/{file.relative_to(REPOSITORY / folder).as_posix()}" for file in files}
    assert "ima_yolo/cfg/default.yaml" in expected
    assert expected <= set(wheel.namelist())


def test_nothing_else_lands_in_site_packages(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {"ima_yolo", "ima_yolo-0.1.0.dist-info"}


def test_the_command_and_the_licence_are_named(wheel: zipfile.ZipFile) -> None:
    info = "ima_yolo-0.1.0.dist-info"
    assert "ima-yolo = ima_yolo.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: AGPL-3.0-only" in wheel.read(f"{info}/METADATA").decode()


def test_the_lock_holds_versions_alone_and_every_dependency() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [re.fullmatch(r"([a-z0-9-]+)==[\w.]+( ; .+)?", line) for line in lines]
    assert None not in pins
    locked = {pin[1] for pin in pins if pin}
    needs = [need for need in requires("ima-yolo") or [] if 'extra == "edge"' not in need]
    direct = {re.split(r"[^\w-]", need, maxsplit=1)[0] for need in needs}
    assert {name.lower() for name in direct} - {"ima-yolo"} <= locked


# What stands for the headless OpenCV of `ima-yolo[edge]` in an environment that has the other build.
SAME = {"opencv-python-headless": "opencv-python"}


def needed_by(needs: list[str], extra: str = "") -> set[str]:
    """The distributions that requirements name, and theirs, for this Python and system."""
    found: set[str] = set()
    for requirement in map(Requirement, needs):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            wanted = SAME.get(requirement.name, requirement.name)
            found |= {wanted} | needed_by(requires(wanted) or [])
    return found


def link_distribution(name: str, folder: Path) -> None:
    """Put an installed distribution's packages, and nothing else, into a folder."""
    dist = distribution(name)
    for top in {Path(str(file)).parts[0] for file in dist.files or [] if Path(str(file)).parts[0] not in ("..", "")}:
        source = Path(str(dist.locate_file(top)))
        if source.exists() and not (folder / top).exists():
            (folder / top).symlink_to(source)


def test_the_edge_extra_is_enough_to_predict(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """A new environment with what `ima-yolo[edge]` asks for, as the Dockerfile installs it, and no torch anywhere."""
    install = next(line for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if "pip install" in line)
    assert '"/source[edge]"' in install
    metadata = message_from_bytes(wheel.read("ima_yolo-0.1.0.dist-info/METADATA"))
    needed = needed_by(metadata.get_all("Requires-Dist") or [], "edge")
    assert {"numpy", "onnxruntime", "opencv-python"} <= needed
    assert not {"torch", "ultralytics", "onnx", "pydantic", "pyyaml"} & {name.lower() for name in needed}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    for name in needed:
        link_distribution(name, site)
    wheel.extractall(site)
    model, picture = tmp_path / "toy.onnx", tmp_path / "a.png"
    write_toy(model)
    cv2.imwrite(str(picture), np.zeros((100, 200, 3), np.uint8))
    python = tmp_path / "venv" / "bin" / "python"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, "-m", "ima_yolo", *words], cwd=tmp_path, capture_output=True, text=True)

    done = run("predict", f"model={model}", f"source={picture}", "save_json=True")
    assert done.returncode == 0, done.stderr
    assert "200x100 1 square" in done.stdout
    absent = run("train", "teacher=a.pt", "student=b.pt")
    assert absent.returncode == 2
    assert absent.stderr.startswith("ima-yolo: ")
    assert "is not installed; this command needs `pip install '.[train]'`" in absent.stderr
    assert run("help").returncode == run("version").returncode == 0
    measured = run("benchmark", f"model={model}", f"source={picture}", "rounds=1", "seconds=0.01")
    assert measured.returncode == 0, measured.stderr
    assert "no plot" in measured.stdout


def write_toy(path: Path) -> None:
    """A detector that finds one square in every picture."""
    values = np.array([[[32, 32, 32, 16, 0.1, 0.9]]], np.float32).transpose(0, 2, 1)
    nodes = [
        helper.make_node("Mul", ["images", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["sum"], keepdims=0),
        helper.make_node("Add", ["values", "sum"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, values.shape)],
        [numpy_helper.from_array(np.float32(0), "zero"), numpy_helper.from_array(values, "values")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    metadata = {"task": "detect", "names": "{0: 'disc', 1: 'square'}", "stride": "32", "imgsz": "[64, 64]"}
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
