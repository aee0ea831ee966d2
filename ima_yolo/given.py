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
    overrides = _without_file(overrides)
    own = {key: value for key, value in said.items() if value is not None or key not in own_keys()}
    return {**{key: own[key] for key in own if (key, own[key]) not in DEFAULT_CFG_DICT.items()}, **overrides}


def _without_file(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Look at the recipe that `YOLO.train(cfg=...)` has read: what it says comes as if it had been given in Python.

    Returns:
        The overrides without what the file says of a run of its own, given beside it or not.
    """
    name = str(overrides.get("cfg") or "")
    if "://" in name or "*" in name:  # looked for, it would be fetched, or searched for in all folders
        raise IMAError(f"cfg={name}: expected the YAML file of a recipe")
    file = check_yaml(name, hard=False) if name else None
    if not file or not Path(file).is_file():
        return dict(overrides)
    content = read_mapping(Path(file))
    # given beside it too, it would look the same
    beside = {key for key in {*overrides, *content} if as_text(overrides.get(key)) != as_text(content.get(key))}
    if content.get("resume") is True and overrides.get("resume"):
        beside.discard("resume")  # Ultralytics puts the model's own path in place of a yes
    recipe = from_recipe(content, file, beside, how="take it out of the file and give")
    dropped = [key for key in overrides if key in content and key not in recipe and key not in beside]
    if content.get("save_dir") and "save_dir" in dropped:
        LOGGER.warning(f"cfg={file}: save_dir={content['save_dir']} is that of its own run; results go elsewhere")
    return {key: value for key, value in overrides.items() if key not in dropped}
