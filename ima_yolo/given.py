"""What a training is given in Python: a base configuration, overrides, and the recipe that `YOLO.train` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.cfg import cfg2dict
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER
from ultralytics.utils.checks import check_yaml

from ima_yolo.config import own_keys, read_mapping
from ima_yolo.errors import IMAError
from ima_yolo.lists import as_text
from ima_yolo.recipes import from_recipe

MODEL = {"student", "model"}


def given(cfg: Any, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a base configuration says beyond Ultralytics' defaults, and then the overrides.

    Args:
        cfg: A file, mapping or namespace.
        overrides: What wins.

    Raises:
        IMAError: If code would run because a file says so.
    """
    overrides = dict(overrides or {})
    is_file = isinstance(cfg, (str, Path))
    said = from_recipe(read_mapping(Path(cfg)), str(cfg), overrides) if is_file else cfg2dict(cfg)
    overrides = _with_file(overrides)
    own = {key: value for key, value in said.items() if value is not None or key not in own_keys()}
    return {**{key: own[key] for key in own if (key, own[key]) not in DEFAULT_CFG_DICT.items()}, **overrides}


def _with_file(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Look at the recipe that `cfg` names; `YOLO.train` has read it, and what it says came as if given in Python.

    Returns:
        The recipe and the overrides, without what the file says of a run of its own, given beside it or not.
    """
    name = str(overrides.get("cfg") or "")
    if not name:
        return dict(overrides)
    # others would be fetched, or searched for in all folders
    is_name = "://" not in name and "*" not in name and name.lower().endswith((".yaml", ".yml"))
    file = check_yaml(name, hard=False) if is_name else ""
    if not file or not Path(file).is_file():
        raise IMAError(f"cfg={name}: expected the YAML file of a recipe")
    content = read_mapping(Path(file))
    # given beside it too, it would look the same
    beside = {key for key in {*overrides, *content} if as_text(overrides.get(key)) != as_text(content.get(key))}
    if content.get("resume") is True and overrides.get("resume"):
        beside.discard("resume")  # Ultralytics puts the model's own path in place of a yes
    recipe = from_recipe(content, file, beside & overrides.keys(), how="take it out of the file and give")
    dropped = {key for key in overrides if key in content and key not in recipe and key not in beside}
    if MODEL & beside & overrides.keys():  # two words for one thing
        recipe = {key: value for key, value in recipe.items() if key not in MODEL}
        dropped |= MODEL - beside
    if "resume" in dropped and overrides["resume"]:
        raise IMAError(
            f"cfg={file}: resume= is that of its own run; give resume=False, or go on with a run without cfg="
        )
    if left := [key for key in ("save_dir", "exist_ok") if key in dropped and overrides[key]]:
        LOGGER.warning(f"cfg={file}: {' and '.join(left)} of its own run: not taken over, results go elsewhere")
    return {**recipe, **{key: value for key, value in overrides.items() if key not in dropped}}
