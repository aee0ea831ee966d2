"""A study on disk: what is compared, what is finished, and with which code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ultralytics.utils import DEFAULT_CFG_DICT

from ima_yolo.config import Settings, spelt_out, validate
from ima_yolo.errors import IMAError, one_line
from ima_yolo.experiment.arms import Arm
from ima_yolo.experiment.identity import code_version
from ima_yolo.files import read_json, write_json
from ima_yolo.lists import listed
from ima_yolo.ranges import LARGEST_SEED, is_seed
from ima_yolo.versions import DIGITS

AGAIN = "remove it and give the study's own command again, which keeps what is finished"
SCORES = ("map50_95", "map50", "map75", "last_map50_95")
REPORTED: dict[str, Any] = {
    **dict.fromkeys((*SCORES, "seconds"), (int, float)),
    "map50_95_of_class": dict,
    "settings": dict,
    "curves": list,
    "epochs": int,
    "code": dict,
    **dict.fromkeys(("device", "data_digest", "initial_digest"), str),
}
"""What tables and figures read of a result, and what it is."""

OURS = frozenset(Settings.model_fields)
DEFAULTS = {**DEFAULT_CFG_DICT, **validate({"teacher": "any"}).model_dump(mode="json")}
MACHINE_KEYS = frozenset({"model", "data", "device"})  # of `yolo train`: these say where, not what


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
    """Arms and seeds that share teacher, data and keys.

    A folder may be copied to another machine, with or without its `runs/`: `study.json` names models and data by what
    they hold, and only `places.json`, which each call writes anew, says where they lie.

    Attributes:
        folder: Where everything is kept.
        made_of: Names and digests of `teacher`, `student` and `data`, and `holdout`, the share of train that stands in
            for val, or None.
        common: Keys of every training, without those of `places`.
        places: On this machine: `teacher`, `model`, `data` and, if given, `device`; empty for a folder that came from
            another machine.
        arms: What is compared.
        seeds: What is repeated.
        against: Arms that the tables compare with; those that are no arm of this study are passed over.
        title: Heading of the report.
        command: Words that run it again.
    """

    folder: Path
    made_of: dict[str, Any]
    common: dict[str, Any]
    places: dict[str, str]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    against: tuple[str, ...] = ()
    title: str = "Comparison"
    command: tuple[str, ...] = field(default=(), compare=False)

    def jobs(self) -> Iterator[Job]:
        """All trainings, seed by seed, so that an unfinished study holds whole pairs."""
        for seed in self.seeds:
            for arm in self.arms:
                yield Job(arm, seed)

    @property
    def data(self) -> str | None:
        """The data set that trainings use on this machine, after holding out; None where it is not known."""
        held = self.folder / "data" / "data.yaml"
        return self.places.get("data") if self.made_of.get("holdout") is None else str(held) if self.places else None

    def result_path(self, job: Job) -> Path:
        """Where a finished training leaves its result."""
        return self.folder / "results" / f"{job.name}.json"

    def analysis_path(self, name: str) -> Path:
        """Where the detections of a finished training, or of the teacher, leave what the report shows of them."""
        return self.folder / "analysis" / f"{name}.json"

    def run_folder(self, job: Job) -> Path:
        """Where a training keeps checkpoints and curves."""
        return self.folder / "runs" / job.name

    def weights(self, job: Job) -> Path:
        """The best checkpoint of a finished training; absent where the folder was copied without `runs/`."""
        return self.run_folder(job) / "weights" / "best.pt"

    def shared_digest(self, arm: Arm) -> str:
        """Of what the trainings of an arm share with all others: models, data and keys; `none` has no teacher."""
        parts = {key: _content(part) for key, part in self.made_of.items() if (arm.kind, key) != ("none", "teacher")}
        keys = {key: value for key, value in self.common.items() if DEFAULTS.get(key, "") != value}
        keys = {key: _number(value) for key, value in keys.items() if arm.kind == "ima" or key not in OURS}
        shared = json.dumps([parts, keys], sort_keys=True)
        return hashlib.sha256(shared.encode()).hexdigest()[:DIGITS]

    def is_finished(self, job: Job) -> bool:
        """Whether a training has a result; results appear whole or not at all."""
        return self.result_path(job).is_file()

    def results(self) -> list[dict[str, Any]]:
        """Results of all finished trainings of this study's arms and seeds.

        Raises:
            IMAError: For a result that cannot be read.
        """
        return [_read_result(self.result_path(job), job) for job in self.jobs() if self.is_finished(job)]

    def not_of_this_call(self) -> list[str]:
        """Names of finished trainings in the folder that are of other arms or seeds than these."""
        own = {job.name for job in self.jobs()}
        return sorted(path.stem for path in (self.folder / "results").glob("*.json") if path.stem not in own)

    def complete_results(self) -> list[dict[str, Any]]:
        """The same, with all that a report reads of each.

        Raises:
            IMAError: As `results`, and for a result that lacks something.
        """
        results = self.results()
        for result in results:
            path = self.folder / "results" / f"{result['arm']}-seed{result['seed']}.json"
            whole = all(isinstance(result.get(key), kind) for key, kind in REPORTED.items())
            whole = whole and isinstance(result.get("in_force", {}), dict)
            whole = whole and all(isinstance(version, str) for version in result["code"].values())
            if not (whole and all(map(_is_of_numbers, [*result["curves"], result["map50_95_of_class"]]))):
                raise IMAError(f"{path}: is damaged; remove it, and it is made again")
            if not all(0 <= result[key] <= 1 for key in SCORES):
                raise IMAError(
                    f"{path}: its scores are not from 0 to 1; see the training's log, and leave that arm out"
                )
        return results

    def save(self, force: bool = False) -> None:
        """Write the study, or check that the one that is there may be continued.

        Arms and seeds may be added, and an arm of which nothing was trained may get other settings; what is shared by
        all trainings may not change.

        Args:
            force: Continue although code or packages have changed since.

        Raises:
            IMAError: If the folder holds another study, one that was begun with other code, or a damaged one.
        """
        path = self.folder / "study.json"
        if path.exists():
            try:
                self._check_continues(read_json(path), force)
            except (AttributeError, LookupError, TypeError) as error:
                raise IMAError(f"{path}: is damaged ({one_line(error)}); choose another name=") from error
        self._check_results(force)
        shown = {"arms": [asdict(arm) for arm in self.arms], "seeds": self.seeds, "against": self.against}
        write_json(path, {**self._identity(), **shown, "title": self.title, "command": self.command})
        write_json(self.folder / "places.json", self.places)

    def _identity(self) -> dict[str, Any]:
        return {"made_of": self.made_of, "common": self.common, "code": code_version()}

    def _check_continues(self, before: Mapping[str, Any], force: bool) -> None:
        now = json.loads(json.dumps(self._identity()))
        before = {**before, "common": _with_none_spelt_out(before["common"])}
        epochs = now["common"].get("epochs", DEFAULT_CFG_DICT["epochs"])
        if now["common"].get("patience") == 0 and epochs <= DEFAULT_CFG_DICT["patience"]:
            before = {**before, "common": {"patience": 0, **before["common"]}}  # of before it was kept: the same runs
        if changed := _differences(before, now):
            raise IMAError(f"{self.folder} holds another study ({', '.join(changed)} differs); choose another name=")
        if before["code"] != now["code"] and not force:
            raise IMAError(
                f"{self.folder} was begun with other code or packages ({_changed_code(before['code'], now['code'])}); "
                f"finish it with those, choose another name=, or mix them with force=True"
            )
        arms = {arm["name"]: arm for arm in before["arms"]}
        for arm in self.arms:
            other = arm.name in arms and arms[arm.name] != json.loads(json.dumps(asdict(arm)))
            if other and self._is_begun(arm):
                raise IMAError(
                    f"{self.folder} holds an arm '{arm.name}' with other settings; give this one another name"
                )

    def _is_begun(self, arm: Arm) -> bool:
        """Whether the folder has a result of an arm, or a checkpoint that it might go on from, with whatever seed."""
        of_arm = f"{arm.name}-seed*"
        patterns = (f"results/{of_arm}.json", f"runs/{of_arm}/weights/*.pt")
        return any(file for pattern in patterns for file in self.folder.glob(pattern))

    def _check_results(self, force: bool) -> None:
        """Refuse results of arms that bear the name of one of these but other settings, or that other code made."""
        for result in self.results():
            arm = next(arm for arm in self.arms if arm.name == result["arm"])
            where = f"{self.folder}: the result {arm.name}-seed{result['seed']}"
            if result.get("shared", shared := self.shared_digest(arm)) != shared:
                raise IMAError(f"{where} was made with other models, data or keys; choose another name=, or remove it")
            if result.get("settings") != json.loads(json.dumps(arm.settings)):
                raise IMAError(f"{where} was made with other settings of that arm; give the arm another name")
            code = result.get("code") or {}
            if not force and code != code_version():
                raise IMAError(
                    f"{where} was made with other code or packages ({_changed_code(code, code_version())}); "
                    f"remove it, or mix them with force=True"
                )


def _read_result(path: Path, job: Job) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict) or (found.get("arm"), found.get("seed")) != (job.arm.name, job.seed):
        raise IMAError(f"{path}: is not the result of {job.name}; remove it, and it is made again")
    return found


def _is_of_numbers(row: Any) -> bool:
    return isinstance(row, Mapping) and all(isinstance(value, (int, float)) for value in row.values())


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What all trainings share and two studies do not: models and data by their digests, keys by their values."""
    if not {"made_of", "common", "code"} <= before.keys():
        return ["format"]

    made = {*before["made_of"], *now["made_of"]}
    parts = [key for key in made if _content(before["made_of"].get(key)) != _content(now["made_of"].get(key))]
    first, second = ({**DEFAULTS, **study["common"]} for study in (before, now))  # one that is given is no other
    return sorted(parts) + sorted(key for key in {*first, *second} if first.get(key, "") != second.get(key, ""))


def _with_none_spelt_out(common: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as they are kept now, of a study that was begun when one that was typed as `none` was kept as None."""
    ours = {key: value for key, value in common.items() if key in OURS}
    return {**{key: value for key, value in common.items() if key not in OURS}, **spelt_out(ours)}


def _number(value: Any) -> Any:
    """A number, however it is spelt: 0, 0.0 and False are one."""
    return float(value) if isinstance(value, int | float) else value


def _content(part: Any) -> Any:
    return part["digest"] if isinstance(part, Mapping) else part


def _changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key, 'absent')}, now {now.get(key, 'absent')}" for key in changed)


def load_study(folder: Path) -> Study:
    """Read a study from its folder.

    Raises:
        IMAError: If there is none, or it is damaged.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise IMAError(f"{folder}: no study here (study.json is missing)")
    saved, places = read_json(path, AGAIN), folder / "places.json"
    if isinstance(saved, Mapping) and "made_of" not in saved:
        raise IMAError(f"{path}: written by an earlier version, which this one does not read")
    try:
        study = Study(
            folder,
            dict(saved["made_of"]),
            dict(saved["common"]),
            {str(key): str(value) for key, value in dict(read_json(places) if places.is_file() else {}).items()},
            tuple(Arm(**arm) for arm in saved["arms"]),
            tuple(map(int, saved["seeds"])),
            tuple(map(str, saved["against"])),
            str(saved["title"]),
            tuple(map(str, saved["command"])),
        )
        if not all(isinstance(arm.name, str) and isinstance(arm.settings, Mapping) for arm in study.arms):
            raise TypeError("arms")
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise IMAError(f"{path}: is damaged ({one_line(error)}); {AGAIN}") from error
    return study


def saved_arms(folder: Path) -> tuple[Arm, ...]:
    """Arms of the study that a folder holds; none where it holds none."""
    return load_study(folder).arms if (folder / "study.json").is_file() else ()


def read_seeds(given: int | str | Sequence[int]) -> tuple[int, ...]:
    """Build the seeds from 0, "0,1,2" or a list.

    Raises:
        IMAError: For anything but distinct whole numbers from 0 to `LARGEST_SEED`.
    """
    try:
        seeds = tuple(int(str(value)) for value in listed(given))
    except (TypeError, ValueError):
        raise IMAError(f"seeds={given}: expected whole numbers, for example seeds=0,1,2") from None
    if not seeds or not all(map(is_seed, seeds)) or len(set(seeds)) < len(seeds):
        raise IMAError(f"seeds={given}: expected distinct whole numbers from 0 to {LARGEST_SEED}")
    return seeds
