"""Every shipped recipe, and every command that its head names, read by the parsers that the commands use."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from ima_yolo import cli
from ima_yolo.commands.experiment import SHARED
from ima_yolo.commands.options import with_recipe
from ima_yolo.config import read_yaml, split, validate
from ima_yolo.errors import IMAError
from ima_yolo.experiment.arms import read_arms
from ima_yolo.experiment.study import read_seeds
from ima_yolo.experiment.sweep import edges, read_space
from ima_yolo.preflight import check_keys

RECIPES = sorted(Path(str(files("ima_yolo.cfg"))).glob("*.yaml"))
HEAD = 8  # lines


def launches(recipe: Path) -> list[str]:
    lines = [line.lstrip("# ").split(":", 1) for line in recipe.read_text().splitlines()[:HEAD] if line.startswith("#")]
    commands = [words[1].strip() for words in lines if len(words) == 2 and words[1].strip().startswith("ima-yolo ")]
    return [command for command in commands if not command.startswith("ima-yolo cfg")]


def check_training(options: dict[str, Any]) -> None:
    ours, rest = split(options)
    given = {key: value for key, value in ours.items() if value is not None}
    validate({"teacher": "t.pt", **given})
    check_keys(rest)
    get_cfg(DEFAULT_CFG_DICT, {key: value for key, value in rest.items() if value is not None})


def check_command(words: list[str]) -> None:
    """Read a command line as the command would, up to the first look at a file."""
    assert words[0] == "ima-yolo"
    cli.parse(words[1:])
    options = with_recipe(cli.read_options(words[2:]))
    if words[1] == "train":
        check_training(options)
        return
    own = {key: options.pop(key) for key in (*SHARED, "arms", "space", "trials") if key in options}
    check_training(options)
    read_seeds(own.get("seeds", 0))
    if words[1] == "compare":
        assert len(read_arms(own["arms"])) > 1
    else:
        assert words[1] == "sweep"
        for arm in edges(read_space(own["space"])):
            check_training({**options, **arm.settings})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_valid_and_says_what_it_is_for_and_how_to_launch_it(recipe: Path) -> None:
    content = read_yaml(recipe)
    check_command(["ima-yolo", "sweep" if "space" in content else "train", f"cfg={recipe}"])
    assert recipe.read_text().startswith("# ")
    commands = launches(recipe)
    assert commands, "names no command"
    for command in commands:
        check_command(shlex.split(command))


def test_recipes_of_the_fields_data_sets_are_there() -> None:
    assert {"coco", "voc", "cityscapes", "custom", "paper", "sweep_weight"} <= {recipe.stem for recipe in RECIPES}


@pytest.mark.parametrize("name", ["coco", "voc", "cityscapes", "custom"])
def test_a_data_set_s_recipe_has_the_papers_schedule_beside_ours(name: str) -> None:
    recipe = next(recipe for recipe in RECIPES if recipe.stem == name)
    ours, papers = (
        next(line for line in recipe.read_text().splitlines() if line.startswith(f"# {word}:"))
        for word in ("Launch", "Paper")
    )
    assert ours != papers
    assert {"optimizer=SGD", "ima_weight=1"} <= {*papers.split()}


def test_the_weight_sweep_is_the_papers() -> None:
    weights = read_yaml(next(recipe for recipe in RECIPES if recipe.stem == "sweep_weight"))["space"]["ima_weight"]
    numbers = [weight for weight in weights if weight != "auto"]
    assert (min(numbers), max(numbers)) == (0.1, 10)
    assert 1 in numbers, "the one that the paper chose"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ima-yolo train ima_wieght=1", "did you mean 'ima_weight'"),
        ("ima-yolo train epohcs=1", "did you mean 'epochs'"),
        ("ima-yolo sweep space=\"{'ima_wieght': [1, 2]}\"", "did you mean 'ima_weight'"),
        ("ima-yolo sweep space=\"{'ima_weight': [1, -2]}\"", "ima_weight=-2"),
        ("ima-yolo compare arms=none,imma", "no arm 'imma'"),
        ("ima-yolo swep", "did you mean 'sweep'"),
    ],
)
def test_a_mistake_in_a_recipe_would_be_found(words: str, message: str) -> None:
    with pytest.raises(IMAError) as caught:
        check_command(shlex.split(words))
    assert message in str(caught.value)
