"""A thousand clumsy and hostile command lines and recipes: one line and exit code 2, or a start; never anything else.

Nothing is stubbed up to the point where work would begin: of a training, the first call of `on_train_start`, which
Ultralytics makes when everything is built; of the other commands, the call that measures, exports or trains.
"""

from __future__ import annotations

import io
import random
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER
from ultralytics.utils.callbacks.base import default_callbacks

from ima_yolo import IMATrainer, cli
from ima_yolo.config import Settings

CASES = {"train": 280, "recipe": 250, "resume": 40, "others": 330, "words": 330}  # 1,230 in all

MINI = """\
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""

VALUES = """
none None True false -1 0 1 2 0.5 1e309 -1e309 nan inf -inf 1e-320 99999999999999999999 0x10 1_000 007 1j
[] [1] [1,2] [[1]] [None] [-1] () (1,) {} {1,2} {'a':1} 1,2 1,nan a,b , [ ] { ( ' " b'x' ... * ~ . .. - -- = == => %s
$HOME `id` ; | & #x !x @x x x.pt x.yaml x.onnx x.png auto ram disk ima paper default gt teacher box spatial SGD cpu mps
cuda 99 0,1 cuda:7 detect segment train val __import__('os') lambda:0 /proc/x /dev/null \\ \\n \\x00 é 漢 💥 🙂.pt
""".split()  # noqa: SIM905 - words to read, not to quote
VALUES += [
    "",
    " ",
    "  a  b ",
    "a\nb",
    "a\tb",
    "a\rb",
    "nul\0byte",
    "\ud800",
    "x" * 300,
    "x" * 5000,
    "[" * 3000,
    "9" * 5000,
]
NUMBERS = "0 1 2 3 5 7 64 100 1000000 999999999999999999 -1 -2 0.1 0.5 0.999 1.0 1.5 -0.1 1e-9 1e-300 1e9 1e300".split()  # noqa: SIM905
PLACES = (
    "project",
    "name",
    "save_dir",
    "output",
    "study",
)  # where something is written: these stay in the test's folder
SAFE_PLACES = (
    "a",
    "",
    " ",
    ".",
    "a/b",
    "None",
    "0",
    "1.5",
    "[]",
    "[1]",
    "{}",
    "nul\0byte",
    "x" * 300,
    "/proc/x",
    "💥",
    "\ud800",
)
KEYS = [key for key in (*DEFAULT_CFG_DICT, *Settings.model_fields, "student") if key not in PLACES]
YAML_VALUES = """
null ~ yes no 1 -1 1.5 .nan .inf -.inf 1e400 0o7 2001-01-01 [] [1,[2]] {} {a:&x} '' ' ' "\\0" !!python/object:os.system
!!python/object/apply:os.system[ls] !x !!binary=aGk= *gone &a [1] |- <<:*x "\\ud800" ? : - % @ ` ---
""".split()  # noqa: SIM905 - words to read, not to quote


class Began(BaseException):
    """Everything was checked; the work would begin now."""


def begin(*_: Any, **__: Any) -> Any:
    raise Began


class Fuzz:
    """Runs one command line after another in a folder, and collects what must not happen."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folders = (folder, data)
        self.seen = self._files()
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []

    def _files(self) -> set[Path]:
        return {path for folder in self.folders for path in folder.rglob("*") if path.suffix != ".cache"}

    def __call__(self, words: list[str]) -> None:
        out, err = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                end: Any = cli.main(words)
        except Began:
            end = "began"
        except (Exception, SystemExit):
            end = "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
        files = self._files()
        shown = err.getvalue()
        fault = self._fault(end, shown, files - self.seen)
        if fault:
            self.faults.append(f"{words!r}\n    {fault}")
        self.seen = files
        self.ends[str(end) if end in (0, 1, 2, "began") else "other"] += 1

    @staticmethod
    def _fault(end: Any, shown: str, new: set[Path]) -> str:
        if end in (0, "began"):
            return ""
        if end != 2:
            return f"ended with {end}"
        if shown.count("\n") != 1 or not shown.startswith("ima-yolo: ") or "Traceback" in shown:
            return f"said {shown!r}"
        return f"left {sorted(map(str, new))}" if new else ""


@pytest.fixture
def mini(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> Callable[[int], Path]:
    """Factory of checkpoints of a detector of five layers."""
    config = tmp_path / "mini.yaml"
    config.write_text(MINI)
    return lambda seed: tiny_checkpoint(str(config), seed=seed)


@pytest.fixture
def stopped_run(mini: Callable[[int], Path], tiny_data: Path, tmp_path: Path) -> Path:
    """Checkpoint of a run that was stopped after the first of two epochs."""
    options = {key: cli.value_of(value) for key, value in base_of(tiny_data).items()}
    models = {"teacher": str(mini(1)), "student": str(mini(2))}
    trainer = IMATrainer(overrides={**options, **models, "epochs": 2, "project": str(tmp_path / "stopped")})
    trainer.add_callback("on_model_save", begin)
    with pytest.raises(Began):
        trainer.train()
    return trainer.last


@pytest.fixture
def fuzz(
    tmp_path: Path, tiny_data: Path, mini: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fuzz]:
    deep = tmp_path / "a" / "b" / "c"  # ".." stays in the test's folder
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    for seed, name in enumerate(("teacher", "student")):
        Path(f"{name}.pt").write_bytes(mini(seed).read_bytes())
    for name in ("x.pt", "x.yaml", "x.onnx", "x.png"):
        Path(name).write_text("neither")
    monkeypatch.setitem(default_callbacks, "on_train_start", [begin])
    for place in (
        "ultralytics.engine.validator.BaseValidator.__call__",
        "ultralytics.engine.predictor.BasePredictor.stream_inference",
        "ima_yolo.export.onnx.export_onnx",
        "ima_yolo.export.benchmark.run_benchmark",
        "ima_yolo.speed.run.run",
        "ima_yolo.experiment.runner.run",
        "ima_yolo.ranking.rank",
        "ima_yolo.demo.run.run",
        "ultralytics.engine.exporter.Exporter.__call__",
    ):
        monkeypatch.setattr(place, begin)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    level = LOGGER.level
    LOGGER.setLevel("ERROR")
    yield Fuzz(tmp_path, tiny_data.parent)
    LOGGER.setLevel(level)


def no_network(*_: Any, **__: Any) -> Any:
    raise AssertionError("a network call")


def value_for(rng: random.Random, key: str) -> str:
    """Something odd, or of the right type and in or out of range."""
    if key in PLACES:
        return rng.choice(SAFE_PLACES)
    default = DEFAULT_CFG_DICT.get(key, Settings.model_fields[key].default if key in Settings.model_fields else None)
    if default is None or isinstance(default, str) or rng.random() < 0.3:
        return rng.choice(VALUES)
    return rng.choice(("True", "False") if isinstance(default, bool) else NUMBERS)


def misspelt(rng: random.Random, word: str) -> str:
    letters = list(word)
    place = rng.randrange(len(letters))
    letters[place : place + rng.randint(0, 2)] = rng.choice(["", "_", "x", " ", "é", "\0"])
    return "".join(letters)


def mutated(rng: random.Random, base: dict[str, str], keys: list[str]) -> list[str]:
    """Words of a sound command line with one to three things wrong, or merely odd."""
    options = dict(base)
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.random()
        key = rng.choice(keys)
        if kind < 0.75:
            options[key] = value_for(rng, key)
        elif kind < 0.85 and options:
            options.pop(rng.choice([key for key in options if key != "plots"]))  # which take a second
        elif kind < 0.95:
            options[misspelt(rng, key)] = value_for(rng, "")
        else:
            options[rng.choice(VALUES)] = rng.choice(VALUES)
    words = [f"{key}={value}" for key, value in options.items()]
    if rng.random() < 0.15:
        words.insert(rng.randrange(len(words) + 1), rng.choice([*VALUES, *KEYS]))
    rng.shuffle(words)
    return words


def base_of(data: Path) -> dict[str, str]:
    base = {"teacher": "teacher.pt", "student": "student.pt", "data": str(data)}
    return {**base, "imgsz": "64", "epochs": "1", "batch": "4", "plots": "False", "device": "cpu"}


def finish(fuzz: Fuzz, cases: int) -> None:
    print(ascii(dict(fuzz.ends)))
    assert not fuzz.faults, f"{len(fuzz.faults)} of {cases}:\n" + "\n".join(fuzz.faults[:40])
    assert sum(fuzz.ends.values()) == cases
    assert fuzz.ends["2"] > cases // 4, "hardly any case is a mistake"


def test_train(fuzz: Fuzz, tiny_data: Path) -> None:
    rng = random.Random(0)
    for _ in range(CASES["train"]):
        fuzz(["train", *mutated(rng, base_of(tiny_data), [*KEYS, *PLACES[:2]])])
    finish(fuzz, CASES["train"])
    assert fuzz.ends["began"] > 50, "hardly any case begins: it is stopped by something in common"


def recipe(rng: random.Random, base: dict[str, str]) -> bytes:
    """A recipe with odd values, or a file that is hardly one."""
    kind = rng.random()
    if kind < 0.6:
        keys = rng.sample(KEYS, rng.choice((1, 1, 2, 3)))
        odd = [f"{key}: {rng.choice(YAML_VALUES) if rng.random() < 0.3 else value_for(rng, key)}" for key in keys]
        return "\n".join([*(f"{key}: {value}" for key, value in base.items()), *odd]).encode(errors="surrogatepass")
    if kind < 0.8:
        nested = {rng.choice(KEYS): rng.choice([{"a": [1]}, [[1]], {1: 2}, "é", 3, None, True, 1.5, "a\nb"])}
        return yaml.safe_dump({**base, **nested, rng.choice([1, None, True, 1.5, "x"]): 1}).encode()
    text = yaml.safe_dump(base).encode()
    place = rng.randrange(len(text))
    return text[:place] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 6))) + text[place + 3 :]


def test_recipes(fuzz: Fuzz, tiny_data: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    file = tmp_path / "recipe.yaml"
    file.touch()
    fuzz.seen.add(file)
    for _ in range(CASES["recipe"]):
        file.write_bytes(recipe(rng, base_of(tiny_data)))
        command = rng.choice(["train"] * 5 + ["compare", "sweep", "ablate"])
        fuzz([command, f"cfg={file}", "project=a", *rng.choice([[], ["epochs=1"], ["ima_weight=1"]])])
    finish(fuzz, CASES["recipe"])


def test_resume(stopped_run: Path, fuzz: Fuzz) -> None:
    rng, base = random.Random(2), {"resume": "True", "model": str(stopped_run), "plots": "False"}
    for _ in range(CASES["resume"]):
        words = mutated(rng, base, ["resume", "model", "data", "save_dir", "batch", "imgsz", "teacher", "device"])
        fuzz(["train", *words])
    finish(fuzz, CASES["resume"])
    assert fuzz.ends["began"] >= 3


OTHERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "val": ({"model": "student.pt", "imgsz": "64"}, ["model", "data", "imgsz", "split", "batch", "device", "conf"]),
    "predict": (
        {"model": "student.pt", "source": "x.png", "project": "a"},
        ["model", "source", "imgsz", "conf", "classes", "save", "device"],
    ),
    "export": (
        {"model": "student.pt", "imgsz": "64"},
        ["model", "format", "imgsz", "images", "output", "quantize", "kit", "max_loss", "calibration", "nms", "data"],
    ),
    "benchmark": ({"model": "x.onnx"}, ["model", "against", "source", "imgsz", "batch", "rounds", "seconds", "output"]),
    "benchmark train": (
        {"teacher": "teacher.pt", "student": "student.pt", "imgsz": "64"},
        ["teacher", "student", "imgsz", "batch", "rounds", "device", "threads", "output", *Settings.model_fields],
    ),
    "compare": ({"arms": "none,ima", "project": "a"}, ["arms", "seeds", "holdout", "devices", "force", *KEYS[:30]]),
    "ablate": ({"what": "mask", "project": "a"}, ["what", "values", "seeds", "holdout", "name"]),
    "sweep": ({"space": "{'ima_weight': [1, 2]}", "project": "a"}, ["space", "trials", "seeds", "name"]),
    "report": ({"study": "a"}, ["study", "pictures"]),
    "teachers": (
        {"candidates": "teacher.pt"},
        ["candidates", "student", "data", "imgsz", "images", "output", "ima_teacher_weights"],
    ),
    "demo": ({"output": "a"}, ["seed", "device", "output"]),
}


def test_other_commands(fuzz: Fuzz, tiny_data: Path) -> None:
    rng = random.Random(3)
    for _ in range(CASES["others"]):
        name = rng.choice(list(OTHERS))
        base, keys = OTHERS[name]
        if name in ("compare", "ablate", "sweep"):
            base = {**base_of(tiny_data), **base}
        elif name in ("val", "teachers"):
            base = {"data": str(tiny_data), **({"student": "student.pt"} if name == "teachers" else {}), **base}
        fuzz([*name.split(), *mutated(rng, base, keys)])
    finish(fuzz, CASES["others"])


def test_words(fuzz: Fuzz) -> None:
    """No command line at all: words thrown together."""
    rng = random.Random(4)
    names = [*cli.COMMANDS, *cli.TASKS, "-h", "--version"]
    for _ in range(CASES["words"]):
        first = rng.choice(names) if rng.random() < 0.7 else rng.choice(VALUES)
        rest = [
            rng.choice([rng.choice(VALUES), f"{rng.choice(KEYS)}={rng.choice(VALUES)}", rng.choice(KEYS)])
            for _ in range(rng.randint(0, 4))
        ]
        fuzz([first, *rest])
    finish(fuzz, CASES["words"])
