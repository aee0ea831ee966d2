"""The house rules of CONTRIBUTING.md, read off the source: who imports whom, lengths, docstrings, packages, addresses.

A new module gets its row in `ROOMS`; a room may use only rooms above it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Room(NamedTuple):
    """What a room's modules may import beside the standard library, `errors` and each other."""

    packages: str = ""  # at module level; inside functions any installed package may be imported
    rooms: str = ""  # at any place
    lazy: str = ""  # rooms that only functions may import; "*" is every room


ROOMS: dict[str, Room] = {
    "errors": Room(),
    "cfg": Room(),
    "lists": Room(),
    "plain_files": Room(),
    "plain_yaml": Room("yaml"),
    "config": Room("pydantic", "lists plain_yaml"),
    "features": Room("torch"),
    "trust": Room(),
    "pickles": Room("numpy torch ultralytics"),
    "architecture": Room("torch torchvision ultralytics", "plain_yaml pickles trust"),
    "quantized": Room("", "trust"),
    "host": Room("torch ultralytics", "features plain_yaml pickles architecture trust quantized"),
    "attach": Room("torch ultralytics", "features host"),
    "random_streams": Room("numpy torch"),
    "teachers": Room(
        "torch torchvision ultralytics onnxruntime", "random_streams features host pickles plain_files trust"
    ),
    "align": Room("torch torchvision", "features"),
    "masks": Room("torch", "features"),
    "moments": Room("torch", "align"),
    "losses": Room("torch torchvision", "features align masks moments"),
    "weighting": Room("torch ultralytics", "config"),
    "merit": Room("torch torchvision", "features"),
    "labels": Room("torch", "masks teachers"),
    "criterion": Room(
        "torch ultralytics", "config features random_streams teachers align masks losses weighting merit"
    ),
    "files": Room(),
    "versions": Room(),
    "checkpoint": Room("torch ultralytics", "config files host"),
    "finite": Room("torch ultralytics", "features"),
    "distill": Room("torch ultralytics", "features finite host teachers masks weighting labels criterion"),
    "assembly": Room("torch", "config features teachers criterion distill"),
    "ranges": Room(),
    "unlabelled": Room("numpy torch ultralytics", "random_streams"),
    "students": Room("torch ultralytics", "plain_yaml host random_streams architecture"),
    "data_archive": Room("", "plain_yaml"),
    "data_set": Room("numpy ultralytics", "pickles data_archive plain_files plain_yaml trust"),
    "pairing": Room("torch ultralytics", "lists config features host teachers"),
    "recipes": Room("", "lists", lazy="teachers"),
    "given": Room("ultralytics", "lists config recipes"),
    "kept": Room("ultralytics", "config host teachers data_set trust"),
    "run_folder": Room("", "plain_files checkpoint"),
    "preflight": Room(
        "yaml torch ultralytics",
        "lists plain_files config features host trust quantized teachers checkpoint ranges students data_set pairing "
        "kept files run_folder",
    ),
    "summary": Room("torch ultralytics", "host"),
    "pictures": Room("numpy PIL ultralytics", "data_set teachers"),
    "data_order": Room("torch", "random_streams"),
    "exact": Room("torch ultralytics", "files"),
    "continuing": Room("torch ultralytics", "data_order exact"),
    "similarity": Room("torch"),
    "trainer": Room(
        "yaml torch ultralytics",
        "attach assembly config features files host teachers weighting criterion checkpoint continuing distill "
        "unlabelled students given pairing recipes trust preflight summary pictures",
    ),
    "runtime": Room("numpy cv2 onnxruntime", "lists plain_files"),
    "benchmark": Room("numpy", "runtime"),
    "memory": Room("torch", "runtime"),
    "teacher_cost": Room("torch", "teachers memory"),
    "ranking": Room(
        "numpy cv2 torch ultralytics",
        "features host teachers align students data_set preflight summary similarity teacher_cost",
    ),
    "export": Room("numpy cv2 onnx onnxruntime torch ultralytics", "host checkpoint data_set preflight runtime"),
    "speed": Room(
        "torch ultralytics",
        "attach assembly config features files host labels teachers memory weighting merit versions distill pairing "
        "runtime",
    ),
    "demo": Room("numpy cv2 yaml torch ultralytics", "config host trainer summary pictures runtime export"),
    "experiment": Room(
        "PIL cv2 faster_coco_eval filelock jinja2 matplotlib numpy scipy yaml torch ultralytics",
        "lists config features files host masks teachers checkpoint data_set ranges preflight distill pairing trainer "
        "summary pictures versions runtime export",
    ),
    "__init__": Room("", "", lazy="*"),
    "cli": Room("", "config", lazy="*"),
    "commands": Room("", "__init__ lists plain_files config cli", lazy="*"),
    "__main__": Room("", "cli"),
}
# All other files of export/ are the room "runtime": they run where there is no torch, so nothing outside their row is
# imported inside functions either.
TORCH_SIDE_OF_EXPORT = {"embedded_nms", "measure", "onnx", "quantize", "quantize_graph", "reference"}
BENCHMARK = {"bench_theirs", "bench_report", "benchmark"}  # runs without torch too, and uses more where it is there
FRONT_DOORS = {"ima_yolo.export": "__init__"}  # packages whose __init__ is checked by another room's row

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = {"ima_yolo": "ima_yolo", "cfg": "ima_yolo.cfg", "export": "ima_yolo.export"}
# Brackets keep the patterns from finding themselves.
FORBIDDEN_TEXT = re.compile(
    r"pypi[.]org|python[h]osted|registry[.]npmjs|download[.]pytorch|(extra-)?index[-]url[ =]|find[-]links[ =]"
    r"|(?<![\w.])/(root|home|work)/\w"
)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".lock", ".txt", ".cfg", ".sh", ""}


class Module(NamedTuple):
    """A source file under its installed name."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return room_of(self.name)


class Import(NamedTuple):
    """One imported module: where, what, and whether at load, inside a function, or for type checkers only."""

    line: int
    target: str
    when: Literal["load", "lazy", "typing"]


def room_of(name: str) -> str:
    if name in FRONT_DOORS:
        return FRONT_DOORS[name]
    parts = name.split(".")
    if parts[1:2] == ["export"] and parts[2] in BENCHMARK:
        return "benchmark"
    if parts[1:2] == ["export"]:
        return "export" if parts[2] in TORCH_SIDE_OF_EXPORT else "runtime"
    return parts[1] if len(parts) > 1 else "__init__"


def modules_of(root: Path) -> dict[str, Module]:
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = (package, *path.relative_to(root / folder).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, ast.parse(path.read_text(), str(path)))
    return found


def imports_of(module: Module, known: dict[str, Module]) -> list[Import]:
    return list(_walk(module.tree, "load", module, known))


def _walk(node: ast.AST, when: str, module: Module, known: dict[str, Module]) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(child.lineno, alias.name, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            source = _absolute(child, module)
            for alias in child.names:
                member = f"{source}.{alias.name}"
                yield Import(child.lineno, member if member in known else source, when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, "lazy", module, known)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _walk(ast.Module(child.body, []), "typing", module, known)
            yield from _walk(ast.Module(child.orelse, []), when, module, known)
        else:
            yield from _walk(child, when, module, known)


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    is_package = module.path.name == "__init__.py"
    base = package[: len(package) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


def import_violations(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        row = ROOMS.get(module.room)
        if row is None:
            yield f"{module.path}: room '{module.room}' has no row in ROOMS"
            continue
        for item in imports_of(module, modules):
            if fault := _fault(item, module, row):
                yield f"{module.path}:{item.line}: room '{module.room}' {fault}"


def _fault(item: Import, module: Module, row: Room) -> str | None:
    package = item.target.split(".")[0]
    if package in sys.stdlib_module_names:
        return None
    if package != "ima_yolo":
        everywhere = module.room == "runtime"
        if (everywhere or item.when == "load") and package not in row.packages.split():
            return f"may not import '{package}'" + ("" if everywhere else " at module level")
        return None
    target = room_of(item.target)
    allowed = {module.room, "errors", *row.rooms.split()}
    lazily = row.lazy.split() if item.when != "load" else []
    return None if target in allowed or target in lazily or "*" in lazily else f"may not import room '{target}'"


def cycle_violations(modules: dict[str, Module]) -> Iterator[str]:
    edges = {
        name: {i.target for i in imports_of(module, modules) if i.when == "load" and i.target in modules}
        for name, module in modules.items()
    }
    while loose := edges.keys() - {n for n, targets in edges.items() if targets & edges.keys()} or (
        edges.keys() - set().union(*edges.values())
    ):
        edges = {name: targets for name, targets in edges.items() if name not in loose}
    if edges:
        yield f"import cycle through {sorted(edges)}"


def shape_violations(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        if not ast.get_docstring(module.tree):
            yield f"{module.path}: no module docstring"
        lines = len(module.path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            yield f"{module.path}: {lines} lines, at most {MAX_FILE_LINES}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield f"{module.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def package_violations(root: Path) -> Iterator[str]:
    declared = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = set()
    for folder, package in FOLDERS.items():
        for path in (root / folder).rglob("*.py"):
            present.add(".".join((package, *path.relative_to(root / folder).parts[:-1])))
    yield from (f"pyproject.toml: packages lacks '{name}'" for name in sorted(present - declared))
    yield from (f"pyproject.toml: packages names '{name}', which has no files" for name in sorted(declared - present))


def text_violations(root: Path) -> Iterator[str]:
    for path in sorted(_text_files(root)):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if found := FORBIDDEN_TEXT.search(line):
                yield f"{path}:{number}: names '{found[0]}'"


def _text_files(root: Path) -> Iterator[Path]:
    """The project's own files: what runs, demos and builds left in the checkout is not looked at."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
        candidates = [root / name for name in listed.stdout.splitlines()]
    else:
        candidates = list(root.rglob("*"))
    yield from (file for file in candidates if file.is_file() and file.suffix in TEXT_SUFFIXES)


def all_violations(root: Path) -> list[str]:
    modules = modules_of(root)
    checks = (import_violations, cycle_violations, shape_violations)
    found = [line for check in checks for line in check(modules)]
    return [*found, *package_violations(root), *text_violations(root)]


def test_the_house_is_in_order() -> None:
    modules = modules_of(REPOSITORY)
    assert {"ima_yolo", "ima_yolo.cfg", "ima_yolo.export", "ima_yolo.errors"} <= modules.keys()
    assert all_violations(REPOSITORY) == []


def test_rooms_use_only_rooms_above_them() -> None:
    order = list(ROOMS)
    for name, room in ROOMS.items():
        below = [used for used in room.rooms.split() if order.index(used) >= order.index(name)]
        assert not below, f"{name} uses {below}"


HEALTHY = {
    "pyproject.toml": "tool.setuptools.packages = ['ima_yolo', 'ima_yolo.cfg', 'ima_yolo.export', 'ima_yolo.losses']",
    "ima_yolo/__init__.py": '"""Door."""\ndef __getattr__(name):\n    from ima_yolo import trainer\n',
    "ima_yolo/trainer.py": '"""Trainer."""\nimport torch\nfrom ima_yolo import host\n',
    "ima_yolo/host.py": '"""Host."""\nimport ultralytics\nfrom ima_yolo.errors import IMAError\n',
    "ima_yolo/errors.py": '"""Errors."""\n',
    "ima_yolo/cli.py": '"""Commands."""\ndef train():\n    import torch\n    from ima_yolo import trainer\n',
    "ima_yolo/losses/__init__.py": '"""Losses."""\nfrom ima_yolo.losses.l2 import l2_loss\n',
    "ima_yolo/losses/l2.py": '"""L2."""\nimport math\nimport torch\n',
    "cfg/__init__.py": '"""Settings."""\n',
    "export/__init__.py": '"""Export."""\n',
    "export/runtime.py": '"""Runtime."""\nimport cv2\nfrom .metadata import read\n',
    "export/metadata.py": '"""Metadata."""\nimport ast\n',
    "export/onnx.py": '"""Exporter."""\nimport torch\nfrom .runtime import load\n',
}

PLANTED = {
    "a loss imports the trainer": ("ima_yolo/losses/l2.py", "from ima_yolo.trainer import T", "may not import room"),
    "the same by its package": ("ima_yolo/losses/l2.py", "from ima_yolo import trainer", "may not import room"),
    "the same inside a function": ("ima_yolo/losses/l2.py", "def f():\n    import ima_yolo.trainer", "room 'trainer'"),
    "the same for types": (
        "ima_yolo/losses/l2.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..trainer import T",
        "may not import room 'trainer'",
    ),
    "a loss knows the host": ("ima_yolo/losses/l2.py", "import ultralytics", "may not import 'ultralytics'"),
    "the source tree's own name": ("ima_yolo/trainer.py", "from export import onnx", "may not import 'export'"),
    "a heavy command line": ("ima_yolo/cli.py", "import torch", "may not import 'torch' at module level"),
    "torch in the runtime": ("export/metadata.py", "def f():\n    import torch", "may not import 'torch'"),
    "the exporter in the runtime": ("export/runtime.py", "from .onnx import export", "may not import room 'export'"),
    "a heavy front door": ("export/__init__.py", "from .onnx import export", "may not import room 'export'"),
    "a room without a row": ("ima_yolo/utils.py", '"""Utilities."""', "'utils' has no row"),
    "an import cycle": ("export/metadata.py", "from .runtime import load", "import cycle"),
    "no docstring": ("ima_yolo/losses/new.py", "import math", "no module docstring"),
    "a long file": ("ima_yolo/host.py", "\n" * MAX_FILE_LINES, f"lines, at most {MAX_FILE_LINES}"),
    "a long function": (
        "ima_yolo/host.py",
        "def f():" + "\n    pass" * MAX_FUNCTION_LINES,
        "f has 61 lines",
    ),
    "a forgotten package": ("ima_yolo/losses/more/__init__.py", '"""More."""', "lacks 'ima_yolo.losses.more'"),
    "a registry's address": ("README.md", "see https://" + "pypi" + ".org/simple", "README.md:1: names"),
    "a path of one machine": ("ima_yolo/host.py", 'DATA = "/' + 'home/me/data"', ":4: names"),
}


def _build(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_healthy_tree_passes(tmp_path: Path) -> None:
    _build(tmp_path, HEALTHY)
    assert all_violations(tmp_path) == []


@pytest.mark.parametrize(("file", "text", "expected"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, expected: str) -> None:
    _build(tmp_path, {**HEALTHY, file: HEALTHY.get(file, "") + text + "\n"})
    assert any(expected in line for line in all_violations(tmp_path))


def test_what_a_run_left_in_the_checkout_is_not_looked_at(tmp_path: Path) -> None:
    _build(tmp_path, HEALTHY)
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    _build(tmp_path, {"ima-demo/args.yaml": "data: /" + "home/me/data\n"})
    assert all_violations(tmp_path) == []


def test_a_package_without_files_is_found(tmp_path: Path) -> None:
    _build(tmp_path, {name: text for name, text in HEALTHY.items() if not name.startswith("ima_yolo/losses")})
    assert all_violations(tmp_path) == ["pyproject.toml: packages names 'ima_yolo.losses', which has no files"]


@pytest.mark.parametrize(
    ("room", "absent"),
    [
        ("cli", {"pydantic", "torch", "ultralytics", "cv2", "numpy", "onnx", "onnxruntime"}),
        ("commands", {"pydantic", "yaml", "torch", "ultralytics", "cv2", "numpy", "onnx", "onnxruntime"}),
        ("runtime", {"torch", "ultralytics", "onnx", "pydantic", "yaml"}),
        ("benchmark", {"torch", "ultralytics", "onnx", "pydantic", "yaml", "matplotlib"}),
    ],
)
def test_light_rooms_load_nothing_heavy_even_indirectly(room: str, absent: set[str]) -> None:
    names = [module.name for module in modules_of(REPOSITORY).values() if module.room == room]
    assert names
    code = f"import sys, {', '.join(names)}; print(sorted({absent!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
