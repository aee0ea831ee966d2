"""What a training is given in Python: a base configuration, overrides, and the recipe that `YOLO.train` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.cfg import cfg2dict
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.checks import check_yaml

from ima_yolo.config import own_keys, read_yaml
from ima_yolo.errors import IMAError
from ima_yolo.lists import as_text
from ima_yolo.recipes import check_recipe


def given(cfg: Any, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a base configuration says beyond Ultralytics' defaults, and then the overrides.

    Args:
        cfg: A file, mapping or namespace.
        overrides: What wins.

    Raises:
        IMAError: If code would run because a file says so.
    """
    overrides = dict(overrides or {})
    if isinstance(cfg, (str, Path)):
        said: dict[str, Any] = read_yaml(Path(cfg))
        check_recipe(said, str(cfg), overrides)
    else:
        said = cfg2dict(cfg)
    _check_file_among(overrides)
    own = {key: value for key, value in said.items() if value is not None or key not in own_keys()}
    return {**{key: own[key] for key in own if (key, own[key]) not in DEFAULT_CFG_DICT.items()}, **overrides}


def _check_file_among(overrides: Mapping[str, Any]) -> None:
    """Look at the recipe that `YOLO.train(cfg=...)` has read: what it says comes as if it had been given in Python."""
    name = str(overrides.get("cfg") or "")
    if "://" in name or "*" in name:  # looked for, it would be fetched, or searched for in all folders
        raise IMAError(f"cfg={name}: expected the YAML file of a recipe")
    file = check_yaml(name, hard=False) if name else None
    if file and Path(file).is_file():
        recipe = read_yaml(Path(file))
        from_it = as_text(recipe.get("teacher")) == as_text(overrides.get("teacher"))
        # given beside it too, it would look the same
        check_recipe(recipe, file, () if from_it else ("teacher",), how="take it out of the file and give")
