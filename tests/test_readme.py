"""The README's commands: each is one that the command line takes, and those of its opening run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from ima_yolo import cli
from ima_yolo.config import Settings, read_yaml, split, validate

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = (README, (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8"))
BLOCKS = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)]
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("ima-yolo ")
]
OPENING = ("train", "val", "export", "predict")
# Keys of a command that are neither Ultralytics' nor settings of a training; each command tests its own.
OWN_WORDS = {
    "compare": {"arms", "seeds"},
    "ablate": {"what", "seeds", "holdout"},
    "sweep": {"space", "seeds"},
    "export": {"images", "format", "kit"},
    "predict": {"save_csv"},
    "benchmark": {"threads", "output"},
    "teachers": {"candidates", "images", "output"},
}


def test_there_are_commands_to_test() -> None:
    assert {words[0] for words in COMMANDS} >= {*OPENING, "compare"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_key_of_a_command_is_one(words: list[str]) -> None:
    from ima_yolo.preflight import check_keys

    command, options = cli.parse([word for word in words if word != "..."])
    assert callable(command)
    given = {key: value for key, value in options.items() if key not in OWN_WORDS.get(words[0], set()) and key != "cfg"}
    ours, rest = split(given)
    validate({"teacher": "any", **ours})
    check_keys({key: value for key, value in rest.items() if key})


def test_the_table_of_settings_shows_every_choice_the_default_first() -> None:
    rows = dict(re.findall(r"^\| [^|]+ \| `(ima_\w+)`[^|]* \| (.+) \|$", README, flags=re.MULTILINE))
    assert len(rows) > 10
    for key, said in rows.items():
        field = Settings.model_fields[key]
        if get_origin(field.annotation) is not Literal:
            continue
        found = [word for word in re.findall(r"\[?`(\w+)`", said) if word in get_args(field.annotation)]
        assert set(found) == set(get_args(field.annotation)), key
        assert found[0] == field.default, key


def test_the_opening_runs_as_it_stands(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, capfd
) -> None:
    """In the README's order, with its file names; only the budget is smaller."""
    (tmp_path / "yolo26m.pt").write_bytes(tiny_checkpoint("yolo26s.yaml", seed=1).read_bytes())
    (tmp_path / "yolo26n.pt").write_bytes(tiny_checkpoint("yolo26n.yaml").read_bytes())
    (tmp_path / "my.yaml").write_text(tiny_data.read_text())
    (tmp_path / "images").symlink_to(tiny_data.parent / "images" / "val")
    (tmp_path / "small.yaml").write_text("workers: 0\nbatch: 4\n")
    place = f"project={tmp_path}/runs/detect"
    opening = [next(words for words in COMMANDS if words[0] == name) for name in OPENING]
    for words in opening:
        smaller = [re.sub(r"^(epochs|imgsz)=.*", lambda m: f"{m[1]}={1 if m[1] == 'epochs' else 64}", w) for w in words]
        extra = ["cfg=small.yaml", place] if words[0] == "train" else [place]
        extra = [] if words[0] == "export" else extra
        code = cli.main([*smaller, *extra])
        assert code == 0, capfd.readouterr().err
        if words[0] == "train":
            (tmp_path / "best.pt").write_bytes((tmp_path / "runs/detect/train/weights/best.pt").read_bytes())
    assert (tmp_path / "best.onnx").exists()


def test_what_python_is_shown_names_what_is_there() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        compile(block, "README.md", "exec")
        for line in block.splitlines():
            if line.startswith(("from ima_yolo", "import ima_yolo")):
                exec(line, {})


def test_settings_that_the_readme_names_exist() -> None:
    defaults = read_yaml_keys()
    assert set(re.findall(r"`(ima_[a-z_]+)(?:=[^`]*)?`", README)) <= defaults


def read_yaml_keys() -> set[str]:
    text = (Path(__file__).parents[1] / "cfg" / "default.yaml").read_text(encoding="utf-8")
    assert read_yaml(Path(__file__).parents[1] / "cfg" / "default.yaml")
    return set(re.findall(r"^(ima_[a-z_]+):", text, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=["README", "benchmarks/README"])
def test_links_between_sections_lead_somewhere(page: str) -> None:
    anchors = {
        name: {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
        for name, titles in (
            (name, re.findall(r"^#+ (.+)$", text, re.MULTILINE))
            for name, text in zip(("", "benchmarks/README.md"), PAGES, strict=True)
        )
    }
    for name, anchor in re.findall(r"\]\(([\w/.]*)#([\w-]+)\)", page):
        assert anchor in anchors[name], f"{name}#{anchor}"
