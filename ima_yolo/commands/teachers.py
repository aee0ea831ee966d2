"""`ima-yolo teachers`: which of several teachers suits a student?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ima_yolo.commands.options import faults_of_the_user, load_safely, no_bare_words, whole_number
from ima_yolo.errors import IMAError, nearest
from ima_yolo.lists import listed_files
from ima_yolo.plain_files import check_addresses, check_plain

SHOWN = ("ima_teacher_imgsz", "ima_teacher_channels")
OWN = ("student", "data", "candidates", "imgsz", "images", "output", "ima_teacher_weights", *SHOWN)
CAUTION = (
    "Ordered by accuracy, then by likeness. Of five teachers of a YOLO26n on blood cells, two seeds each, accuracy\n"
    "foretold the student's exactly where nothing holds weak teachers off (ima_gate=False); with the gate the five\n"
    "students differed by little more than chance. Decide by `ima-yolo compare`."
)


def teachers(options: dict[str, Any]) -> int:
    """Look at each candidate before any training; print a table and write a plot."""
    load_safely()
    options = no_bare_words(options)
    for key in options:
        if key not in OWN:
            raise IMAError(f"'{key}' is not a setting of `ima-yolo teachers`{nearest(key, OWN)}")
    check_addresses(options)
    for key in ("student", "data", "candidates"):
        if not options.get(key):
            raise IMAError(f"{key}= is missing")
    candidates = _names(options["candidates"])
    given = _names(options.get("ima_teacher_weights") or "")
    if not candidates:
        raise IMAError(f"candidates={options['candidates']}: names nothing between its commas")
    if len(given) not in (0, 1, len(candidates)):
        raise IMAError(f"ima_teacher_weights needs one value, or one for each of {len(candidates)} candidates")
    imgsz, images = whole_number(options, "imgsz", 640), whole_number(options, "images", 32)
    output = Path(str(options.get("output") or "teachers.png"))
    if output.suffix != ".png":
        raise IMAError(f"output={output}: expected the name of a picture, with .png at its end")
    if not output.absolute().parent.is_dir():
        raise IMAError(f"output={output}: no folder {output.absolute().parent}")
    from ima_yolo.config import validate
    from ima_yolo.files import check_folder
    from ima_yolo.pairing import located, weights_of
    from ima_yolo.ranking import plot, rank, table
    from ima_yolo.teachers.load import is_file
    from ima_yolo.teachers.view import Input

    check_folder(output.absolute().parent, f"output={output}")
    check_plain(output, "output=")
    names = [located(name) if is_file(name) else name for name in candidates]
    weights, data = weights_of(names, given or None), Path(str(options["data"]))
    seen = validate({"teacher": names[0], **{key: options[key] for key in SHOWN if key in options}})
    imgsz = -(-imgsz // 32) * 32
    shown = Input((seen.ima_teacher_imgsz or imgsz) / imgsz, seen.ima_teacher_channels)
    with faults_of_the_user():
        found = rank(located(options["student"]), data, names, imgsz, images, weights, shown)
    print(f"\n{table(found)}\n\n{CAUTION}\nplot {plot(found, output)}")
    return 0


def _names(given: Any) -> list[str]:
    return [name for name in listed_files(given) if name]
