"""The wheel that users install: everything inside `ima_yolo`, nothing beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

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
    direct = {re.split(r"[^\w-]", need, maxsplit=1)[0] for need in requires("ima-yolo") or []}
    assert {name.lower() for name in direct} - {"ima-yolo"} <= locked
