"""Everything a report is made from: results, and what was measured on the validation images and kept beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any

from ima_yolo.config import split, validate_alone
from ima_yolo.data_set import images_in, read_data_set
from ima_yolo.errors import IMAError, one_line
from ima_yolo.experiment.arms import TEACHER
from ima_yolo.experiment.report.analysis import analysis, detections, ground_truth, is_analysis
from ima_yolo.experiment.study import Job, Study
from ima_yolo.files import read_json, write_json
from ima_yolo.host import load_model
from ima_yolo.pairing import is_one_checkpoint
from ima_yolo.summary import Row, measure_all

TYPES: dict[str, Any] = {**dict.fromkeys(("name", "timing", "note"), str), "parameters": (int, NoneType)}
"""What a row of sizes and speeds holds where it is not just a number."""


@dataclass
class Measured:
    """A study with what is known of it.

    Attributes:
        study: Arms, seeds and settings.
        results: Finished trainings.
        analyses: By name of the training, or "teacher".
        efficiency: Size and speed of "teacher" and "student".
    """

    study: Study
    results: list[dict[str, Any]]
    analyses: dict[str, dict[str, Any]]
    efficiency: dict[str, Row]

    @cached_property
    def arms(self) -> list[str]:
        """Arms that have a result, in the study's order."""
        have = {result["arm"] for result in self.results}
        return [arm.name for arm in self.study.arms if arm.name in have]

    def of_arm(self, arm: str) -> list[dict[str, Any]]:
        """Analyses of an arm's seeds; of the teacher for "teacher"."""
        names = [TEACHER] if arm == TEACHER else [f"{arm}-seed{seed}" for seed in self.study.seeds]
        return [self.analyses[name] for name in names if name in self.analyses]

    @cached_property
    def plain(self) -> str | None:
        """The arm without a teacher, or the first one."""
        return next((name for name in self.arms if name == "none"), next(iter(self.arms), None))

    @cached_property
    def distilled(self) -> str | None:
        """The arm of ours that the tables compare with, as an ablation's default; else the best of ours, or of all."""
        kinds = {arm.name: arm.kind for arm in self.study.arms}
        others = [name for name in self.arms if name != self.plain]
        ours = [name for name in others if kinds[name] == "ima"] or others
        compared = [name for name in ours if name in self.study.against]
        if len(compared) == 1:  # what the study is about; in the paper's table each row is compared with
            return compared[0]
        return max(ours, key=self._mean, default=None)

    def leading(self, count: int) -> list[str]:
        """All arms, or where there are more than `count`, the plain one and the best of the others."""
        if len(self.arms) <= count:
            return self.arms
        others = sorted((name for name in self.arms if name != self.plain), key=self._mean, reverse=True)
        best = {self.plain, *others[: count - 1]}
        return [name for name in self.arms if name in best]

    @cached_property
    def pictured(self) -> list[str]:
        """What detailed figures show: the teacher, the plain student and one distilled one."""
        shown = [TEACHER if self.of_arm(TEACHER) else None, self.plain, self.distilled]
        return [name for name in shown if name is not None]

    def _mean(self, arm: str) -> float:
        scores = [result["map50_95"] for result in self.results if result["arm"] == arm]
        return sum(scores) / len(scores)


def analyse(study: Study, name: str, weights: Path, device: str | None = None) -> None:
    """Analyse a model's detections on the study's validation images, unless that is done already.

    Args:
        study: Where the data lies, and where the analysis is kept.
        name: Of the training, or "teacher".
        weights: Its checkpoint.
        device: As in `yolo predict`.
    """
    path = study.analysis_path(name)
    if path.is_file() or not weights.is_file() or study.data is None:
        return
    images, names, channels = validation(study)
    imgsz, device = study.common.get("imgsz", 640), device or study.places.get("device")
    load_model(weights, name, reopened=True)  # which Ultralytics opens now, code and all
    found = detections(weights, images, names, imgsz, device, channels, bands_of(study, name))
    write_json(path, analysis(ground_truth(images, names), found, names))


def validation(study: Study) -> tuple[list[Path], dict[int, str], int]:
    """The images that the study is evaluated on, the class names by index, and the images' channels."""
    if "://" in str(study.data):  # a folder that somebody sent has nothing fetched
        raise IMAError(f"data={study.data}: not fetched for a report")
    data = read_data_set(str(study.data), fetch=False)
    names = {int(index): str(name) for index, name in data["names"].items()}
    return list(images_in(data["val"])), names, int(data["channels"])


def bands_of(study: Study, name: str) -> tuple[int, ...] | None:
    """Which of the data's channels a model is shown: those named for the teacher, None for the usual ones."""
    if name != TEACHER:
        return None
    ours, _ = split(study.common)
    return validate_alone(ours).ima_teacher_channels


def collect(study: Study, say: Callable[[str], None]) -> Measured:
    """Measure what is missing and can be measured here, and read everything.

    Args:
        study: With or without its `runs/`.
        say: Receives a line for what could not be measured.
    """
    finished = [job for job in study.jobs() if study.is_finished(job)]
    for name, weights in [(job.name, study.weights(job)) for job in finished] + list(teacher_file(study).items()):
        attempt(f"details of {name}", lambda: analyse(study, name, weights), say)  # noqa: B023
    attempt("size and speed", lambda: _measure_efficiency(study, finished), say)
    analyses: dict[str, dict[str, Any]] = {}
    rows: dict[str, Row] = {}
    for name in [TEACHER, *(job.name for job in finished)]:
        attempt(f"details of {name}", lambda: analyses.update(_read_analysis(study.analysis_path(name), name)), say)  # noqa: B023
    attempt("size and speed", lambda: rows.update(_read_rows(study.folder / "efficiency.json")), say)
    return Measured(study, study.complete_results(), analyses, rows)


def _read_analysis(path: Path, name: str) -> dict[str, dict[str, Any]]:
    """An analysis under its name; nothing where there is none."""
    if not path.is_file():
        return {}
    found = read_json(path)
    if not is_analysis(found):
        raise IMAError(f"{path}: is damaged; remove it, and it is made again")
    return {name: found}


def _read_rows(path: Path) -> dict[str, Row]:
    """Size and speed of teacher and student; nothing where they were not measured."""
    if not path.is_file():
        return {}
    try:
        rows = {str(name): Row(**row) for name, row in read_json(path).items()}
        if not all(map(_is_whole, rows.values())):
            raise TypeError
    except (AttributeError, TypeError) as error:
        raise IMAError(f"{path}: is damaged; remove it, and it is made again") from error
    return rows


def _is_whole(row: Row) -> bool:
    return all(isinstance(value, TYPES.get(key, (int, float, NoneType))) for key, value in asdict(row).items())


def attempt(what: str, work: Callable[[], object], say: Callable[[str], object]) -> None:
    """Run work that a report can do without: it must not cost the tables."""
    try:
        work()
    except Exception as error:
        say(f"the report goes without {what}: {one_line(error)}")


def teacher_file(study: Study) -> dict[str, Path]:
    """The teacher's checkpoint under its name; nothing for several teachers, for one of another kind, or far away."""
    path = Path(study.places.get(TEACHER, ""))
    return {TEACHER: path} if path.is_file() else {}


def _measure_efficiency(study: Study, finished: Sequence[Job]) -> None:
    weights = next((study.weights(job) for job in finished if study.weights(job).is_file()), None)
    path = study.folder / "efficiency.json"
    if path.is_file() or weights is None or study.data is None:
        return
    if is_one_checkpoint(teacher := study.places.get(TEACHER, "")) and not teacher_file(study):
        raise IMAError(f"teacher={teacher}: not here")  # what is kept without it would stay so
    keys: dict[str, Any] = {key: study.common[key] for key in ("batch", "workers") if key in study.common}
    if "device" in study.places:
        keys["device"] = study.places["device"]
    models = {**teacher_file(study), "student": weights}
    validation(study)
    for name, model in models.items():
        load_model(model, name, reopened=True)
    data, imgsz = Path(study.data), study.common.get("imgsz", 640)
    write_json(path, {row.name: asdict(row) for row in measure_all(models, data, imgsz, **keys)})
