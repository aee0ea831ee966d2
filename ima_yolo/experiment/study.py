"""A study on disk: what is compared, what is finished, and with which code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError
from ima_yolo.experiment.arms import Arm
from ima_yolo.files import write_json

# What can change the outcome of a training; reports and commands cannot.
TRAINING_CODE = (
    *(
        "features.py",
        "host.py",
        "align.py",
        "masks.py",
        "moments.py",
        "weighting.py",
        "criterion.py",
        "checkpoint.py",
        "distill.py",
    ),
    *("trainer.py", "config.py", "teachers/*.py", "losses/*.py", "experiment/worker.py"),
)
TRAINING_PACKAGES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python")


@dataclass(frozen=True)
class Job:
    """One training of a study."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and result."""
        return f"{self.arm.name}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """Arms and seeds that share teacher and keys.

    Attributes:
        folder: Where everything is kept.
        teacher: Checkpoint to learn from.
        common: Keys of every training, `model` among them.
        arms: What is compared; the first is the baseline of the tables.
        seeds: What is repeated.
    """

    folder: Path
    teacher: str
    common: dict[str, Any]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]

    def jobs(self) -> Iterator[Job]:
        """All trainings, seed by seed, so that an unfinished study holds whole pairs."""
        for seed in self.seeds:
            for arm in self.arms:
                yield Job(arm, seed)

    def result_path(self, job: Job) -> Path:
        """Where a finished training leaves its result."""
        return self.folder / "results" / f"{job.name}.json"

    def run_folder(self, job: Job) -> Path:
        """Where a training keeps checkpoints and curves."""
        return self.folder / "runs" / job.name

    def is_finished(self, job: Job) -> bool:
        """Whether a training has a result; results appear whole or not at all."""
        return self.result_path(job).is_file()

    def results(self) -> list[dict[str, Any]]:
        """Results of all finished trainings of this study's arms and seeds."""
        paths = [self.result_path(job) for job in self.jobs() if self.is_finished(job)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def save(self, force: bool = False) -> None:
        """Write the study, or check that the one that is there may be continued.

        Arms and seeds may be added; what is shared by all trainings may not change.

        Args:
            force: Continue although code or packages have changed since.

        Raises:
            IMAError: If the folder holds another study, or one that was begun with other code.
        """
        path = self.folder / "study.json"
        if path.exists():
            self._check_continues(json.loads(path.read_text(encoding="utf-8")), force)
        write_json(path, {**self._identity(), "arms": [asdict(arm) for arm in self.arms], "seeds": list(self.seeds)})

    def _identity(self) -> dict[str, Any]:
        return {"teacher": self.teacher, "common": self.common, "code": code_version()}

    def _check_continues(self, before: Mapping[str, Any], force: bool) -> None:
        now = json.loads(json.dumps(self._identity()))
        if before["teacher"] != now["teacher"] or before["common"] != now["common"]:
            changed = [key for key in {*before["common"], *now["common"]} if _differs(before, now, key)]
            what = ", ".join(sorted(changed)) or "teacher"
            raise IMAError(f"{self.folder} holds another study ({what} differs); choose another name=")
        if before["code"] != now["code"] and not force:
            raise IMAError(
                f"{self.folder} was begun with other code or packages; finish it with those, choose another name=, "
                f"or mix them with force=True"
            )
        arms = {arm["name"]: arm for arm in before["arms"]}
        for arm in self.arms:
            if arm.name in arms and arms[arm.name] != json.loads(json.dumps(asdict(arm))):
                raise IMAError(
                    f"{self.folder} holds an arm '{arm.name}' with other settings; give this one another name"
                )


def _differs(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    return bool(before["common"].get(key) != now["common"].get(key))


def load_study(folder: Path) -> Study:
    """Read a study from its folder.

    Raises:
        IMAError: If there is none.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise IMAError(f"{folder}: no study here (study.json is missing)")
    saved = json.loads(path.read_text(encoding="utf-8"))
    arms = tuple(Arm(**arm) for arm in saved["arms"])
    return Study(folder, saved["teacher"], saved["common"], arms, tuple(saved["seeds"]))


def code_version() -> dict[str, str]:
    """Versions of the packages that train, and a digest of our own files that do."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted({file for pattern in TRAINING_CODE for file in package.glob(pattern)}):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return {"ima_yolo": digest.hexdigest()[:16], **{name: version(name) for name in TRAINING_PACKAGES}}


def read_seeds(given: int | str | Sequence[int]) -> tuple[int, ...]:
    """Build the seeds from 0, "0,1,2" or a list.

    Raises:
        IMAError: For anything but distinct whole numbers from 0 up.
    """
    try:
        values = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else list(given)
        seeds = tuple(int(value) for value in values)
    except (TypeError, ValueError):
        raise IMAError(f"seeds={given}: expected whole numbers, for example seeds=0,1,2") from None
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise IMAError(f"seeds={given}: expected distinct whole numbers from 0 up")
    return seeds
