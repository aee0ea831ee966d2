"""What a resumed checkpoint says of its run: nothing that is called, fetched or opened unless the user names it too."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from ima_yolo.config import Settings
from ima_yolo.data_set import is_converted
from ima_yolo.errors import IMAError, one_line
from ima_yolo.host import is_published
from ima_yolo.teachers.load import is_file, is_function
from ima_yolo.trust import trusts


def check_kept(last: Path, args: Any, settings: Settings, given: Collection[str]) -> dict[str, Any]:
    """Refuse what a checkpoint would have called, fetched or opened: whoever sent it chose that, not the user.

    Args:
        last: The checkpoint.
        args: Ultralytics' arguments in it.
        settings: Ours.
        given: Which of "teacher" and "data" the user named anew.

    Returns:
        Ultralytics' arguments, complete.

    Raises:
        IMAError: With what to do.
    """
    if not isinstance(args, dict):
        raise IMAError(f"resume={last}: holds no arguments of a training")
    try:  # with what else it may hold: Ultralytics reads all of it
        checked = vars(get_cfg({**DEFAULT_CFG_DICT, "save_dir": None, **args}))
        if checked["imgsz"] == [] or not isinstance(checked["save_dir"] or "", (str, Path)):
            raise ValueError(f"imgsz={checked['imgsz']}, save_dir={checked['save_dir']}")
    except Exception as error:
        raise IMAError(f"resume={last}: its arguments are no good ({one_line(error)})") from error
    if trusts():
        return checked
    if checked["distill_model"] is not None:
        raise IMAError(f"resume={last}: refused, since its distill_model= would open another file")
    for name in () if "teacher" in given else settings.teachers:
        if is_function(name) or "://" in name or (is_file(name) and is_published(name)):
            what = "run" if is_function(name) else "fetch"
            raise IMAError(f"resume={last}: it would {what} its teacher; if that is yours, add teacher={name}")
    published = [name for name in settings.ima_teacher_weights or () if not Path(name).is_file()]
    if published and "teacher" not in given and not all(is_file(name) for name in settings.teachers):
        reason = f"it would fetch the weights {published[0]} of its teacher"
        raise IMAError(f"resume={last}: {reason}; if that is yours, add teacher={settings.teacher}")
    if "data" not in given and ("://" in str(checked["data"]) or is_converted(str(checked["data"]))):
        raise IMAError(f"resume={last}: it would fetch its data; if that is yours, add data={checked['data']}")
    return checked
