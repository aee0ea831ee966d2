"""`ima-yolo train`: train, then say what it brought."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ima_yolo.commands.options import faults_of_the_user, load_safely, no_bare_words, switches, with_recipe

if TYPE_CHECKING:
    from ima_yolo.summary import Row

PICTURES = 4  # validation images in the side-by-side picture


def train(options: dict[str, Any]) -> int:
    """Train a student with a teacher, print the summary table and the paths of what was written."""
    if options.get("ima_trust") is not True:
        load_safely()
    from ultralytics.utils import LOGGER

    from ima_yolo.summary import table
    from ima_yolo.trainer import IMATrainer
    from ima_yolo.trust import trusting

    with faults_of_the_user():
        trainer = IMATrainer(overrides=with_recipe(no_bare_words(options, switches())))
    trainer.train()
    student = trainer.best if trainer.best.exists() else trainer.last
    _say_where({"student": student, "epochs": trainer.csv, "curves": trainer.save_dir / "results.png"})
    models = {**_teachers_on_disk(trainer.settings.teachers), "student": student}
    rows = measured(models, trainer.args)
    LOGGER.info(f"\n{table(rows)}\n")
    if weaker := weaker_teachers(rows):
        LOGGER.warning(f"{weaker} is less accurate than the student: such a teacher holds it back")
    with trusting(trainer.settings.ima_trust):
        bands = trainer.settings.ima_teacher_channels
        picture = picture_of(models, trainer.args, trainer.data, trainer.save_dir / "side_by_side.png", bands)
    _say_where({"picture": picture})
    LOGGER.info(f"next     ima-yolo export model={student} format=onnx imgsz={trainer.args.imgsz}")
    return 0


def _teachers_on_disk(names: tuple[str, ...]) -> dict[str, Path]:
    """Teachers that are checkpoints, which alone can be measured beside the student."""
    from ima_yolo.teachers.load import is_file

    files = [Path(name) for name in names if is_file(name)]
    return {"teacher" if len(files) == 1 else f"teacher {path.stem}": path for path in files}


def _say_where(written: dict[str, Path]) -> None:
    from ultralytics.utils import LOGGER

    for what, path in written.items():
        if path.exists():
            LOGGER.info(f"{what:<8} {path}")


def measured(models: dict[str, Path], args: Any) -> list[Row]:
    """Measure models on the validation images."""
    from ima_yolo.summary import measure_all

    keys = {name: getattr(args, name) for name in ("device", "batch", "workers", "classes", "single_cls")}
    return measure_all(models, Path(args.data), args.imgsz, args.task, **keys)


def weaker_teachers(rows: Sequence[Row]) -> str:
    """Names of the teachers that find less than the student, the last row; empty where there are none."""
    *teachers, student = rows
    reached = student.map50_95 or 0.0
    return ", ".join(row.name for row in teachers if row.map50_95 is not None and row.map50_95 < reached)


def picture_of(
    models: dict[str, Path], args: Any, data: dict[str, Any], output: Path, bands: tuple[int, ...] | None = None
) -> Path:
    """Draw ground truth and models side by side on images spread evenly over the validation set.

    Args:
        models: Checkpoints by name; the last is the student, the others are its teachers.
        args: The training's, as Ultralytics has them.
        data: The data set.
        output: The PNG to write.
        bands: Channels that teachers are shown, as in `ima_teacher_channels`.

    Returns:
        `output`.
    """
    from ima_yolo.data_set import images_in
    from ima_yolo.pictures import ground_truth_column, prediction_column, side_by_side

    images = list(images_in(data["val"]))
    chosen = images[:: max(1, len(images) // PICTURES)][:PICTURES]
    columns = [ground_truth_column(chosen, data, single_cls=bool(args.single_cls), task=args.task)]
    common = {"device": args.device, "task": args.task, "channels": data["channels"]}
    student = list(models)[-1]
    columns += [
        prediction_column(name, path, chosen, args.imgsz, bands=None if name == student else bands, **common)
        for name, path in models.items()
    ]
    return side_by_side(chosen, columns, output)
