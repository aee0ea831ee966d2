"""From what the user wrote to a study: everything is checked before a folder is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER
from ultralytics.utils.torch_utils import parse_device, select_device

from ima_yolo.config import Settings, spelt_out, split
from ima_yolo.errors import IMAError, one_line
from ima_yolo.experiment.arms import DECIDED, EVALUATED_BY, Arm, check_alike
from ima_yolo.experiment.identity import data_identity, model_identity, teacher_identity
from ima_yolo.experiment.images import hold_out, scan_labels
from ima_yolo.experiment.study import MACHINE_KEYS, Study
from ima_yolo.experiment.tables import own_keys, plain_keys
from ima_yolo.lists import listed
from ima_yolo.pairing import is_one_checkpoint
from ima_yolo.preflight import Plan, prepare


def build_study(
    folder: Path,
    options: Mapping[str, Any],
    arms: tuple[Arm, ...],
    seeds: tuple[int, ...],
    holdout: float | None = None,
    **shown: Any,
) -> Study:
    """Check every arm as a training would be checked, and put the study together; nothing is written.

    Args:
        folder: Where the study will be kept.
        options: Keys of all trainings, ours and Ultralytics'.
        arms: What is compared.
        seeds: What is repeated.
        holdout: Share of train that stands in for val, in (0, 1); None is the data set's own val.
        **shown: `against`, `title` and `command` of the study.

    Raises:
        IMAError: For the first thing that cannot work.
    """
    if holdout is not None and (isinstance(holdout, bool) or not isinstance(holdout, float) or not 0 < holdout < 1):
        raise IMAError(f"holdout={holdout}: expected a share of train between 0 and 1, for example holdout=0.3")
    if taken := sorted(DECIDED & options.keys()):
        raise IMAError(f"{taken[0]}=: differs between the trainings of a study; leave it out (seeds= names the seeds)")
    # What a report says of single images would not follow these.
    if taken := [key for key in EVALUATED_BY if options.get(key, DEFAULT_CFG_DICT[key]) != DEFAULT_CFG_DICT[key]]:
        raise IMAError(f"{taken[0]}=: a study evaluates all classes of val as Ultralytics does; leave it out")
    if len(listed(options.get("device"))) > 1:
        raise IMAError(f"device={options['device']}: a training of a study takes one; devices= deals out several")
    options = {**options, "project": str(folder.parent), "name": folder.name}
    plan = _checked(options, {})
    _check_builtin(arms, plan.settings.teacher)
    _check_arms(options, arms, plan)
    model, data = str(plan.overrides["model"]), str(options["data"])
    found = {} if data.endswith(".ndjson") else check_det_dataset(data)
    if holdout is not None and not found:
        raise IMAError(f"data={data}: holdout= needs a data set of folders or lists, not an ndjson file")
    made_of = {
        "teacher": teacher_identity(plan.settings),
        "student": model_identity(model, "student"),
        "data": data_identity(data, found),
        "holdout": holdout,
    }
    ours, rest = split(options)
    apart = {*MACHINE_KEYS, "teacher", "project", "name"}
    # Arms that end at different epochs had no budget in common, so nobody stops early unless that is asked for.
    given = plan.settings.model_dump(mode="json", include=spelt_out(ours).keys() - {"teacher"})  # spelt in one way
    common = {"patience": 0, **{key: value for key, value in {**rest, **given}.items() if key not in apart}}
    file = Path(found.get("yaml_file", data)).absolute()
    places = {"teacher": plan.settings.teacher, "model": model, "data": str(file)}
    if rest.get("device") is not None:
        places["device"] = str(rest["device"])
    return Study(folder, made_of, common, places, arms, seeds, **shown)


def _check_arms(options: Mapping[str, Any], arms: Iterable[Arm], plan: Plan) -> None:
    """Refuse arms that cannot be trained or compared; name what makes them alike or not comparable.

    Keys that no training would read are named as well.

    Args:
        options: Keys of all trainings.
        arms: All arms.
        plan: That of the keys of all trainings.
    """
    made: list[tuple[Arm, Settings]] = []
    for arm in arms:
        check_alike(arm.name, arm.settings)
        if arm.kind != "ima" and not arm.settings:  # nothing but what all share, which was checked
            continue
        try:
            settings = _checked(options, arm.settings, plan).settings
        except IMAError as error:
            raise IMAError(f"arm {arm.name}: {error}" if arm.settings else str(error)) from None
        if arm.kind == "ima":
            made.append((arm, settings))
    _tell_of_twins(made)
    for fault in own_keys({arm.name: {**options, **arm.settings} for arm in arms}):
        LOGGER.warning(fault)
    given = set(split(options)[0]) - {"teacher"}
    unread = {key for key in given if all(key in settings.unread for _, settings in made)}
    idle = unread | {key for key in given if all(key in arm.settings for arm, _ in made)}
    if "dis" in options and all(arm.kind != "builtin" for arm in arms):
        idle.add("dis")
    if idle:
        LOGGER.warning(f"without effect in every arm: {', '.join(sorted(idle))}")
    for arm, settings in made:
        if own := arm.settings.keys() & settings.unread:
            LOGGER.warning(f"arm {arm.name}: without effect beside its other settings: {', '.join(sorted(own))}")


def _tell_of_twins(made: Iterable[tuple[Arm, Settings]]) -> None:
    """Name arms of ours that differ in nothing that is read."""
    seen: dict[str, str] = {}
    for arm, settings in made:
        read = settings.model_dump(mode="json", exclude=settings.unread)
        content = str([sorted(read.items()), sorted(plain_keys(arm.settings).items())])
        if (other := seen.setdefault(content, arm.name)) != arm.name:
            LOGGER.warning(f"arms {other} and {arm.name} train alike: they differ in nothing that is read")


def _checked(options: Mapping[str, Any], settings: Mapping[str, Any], loaded: Plan | None = None) -> Plan:
    options = {**options, **settings}
    plan = prepare(options, kind="detect", told=False, loaded=loaded)
    if options.get("batch", 1) < 1:
        raise IMAError(f"batch={options['batch']}: each training would choose its own; give a study a number of images")
    return plan


def _check_builtin(arms: Iterable[Arm], teacher: str) -> None:
    if any(arm.kind == "builtin" for arm in arms) and not is_one_checkpoint(teacher):
        raise IMAError(
            f"arm builtin: Ultralytics' distill_model= takes one checkpoint, not teacher={teacher}; leave "
            f"the arm out, for example arms=none,ima"
        )


def lay_out(study: Study, force: bool = False, together: bool = False) -> None:
    """Write the study to its folder, or check that the one that is there goes on; split the data if it asks for that.

    Args:
        study: As `build_study` returned it.
        force: As in `Study.save`.
        together: Whether several trainings will start at once, and must find the labels read.
    """
    study.save(force)
    share = study.made_of["holdout"]
    if share is not None:
        hold_out(check_det_dataset(study.places["data"]), share, study.folder / "data")
    if together and study.data is not None and not study.data.endswith(".ndjson"):
        scan_labels(study.data, study.common.get("fraction", 1.0))


def read_slots(devices: Any, jobs: Any) -> list[str | None]:
    """Devices of the trainings that run at a time.

    Args:
        devices: "0,1", a list, or None for Ultralytics' choice.
        jobs: How many run at a time; by default one a device. More than devices are dealt out in turn.

    Raises:
        IMAError: For a number of trainings or devices that makes no sense.
    """
    places = listed(devices)
    if not places or "" in places:
        raise IMAError(f"devices={devices}: expected a device or several, for example devices=0,1")
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise IMAError(f"jobs={jobs}: expected a whole number from 1 up")
    dealt = (places[index % len(places)] for index in range(jobs or len(places)))
    return [None if place is None else str(place) for place in dealt]


def check_devices(devices: Iterable[str | None]) -> None:
    """Refuse a device that this machine does not have; found out by each training, it would cost one line a training.

    Raises:
        IMAError: For the first that is not there.
    """
    for device in dict.fromkeys(devices):
        if device is not None:
            try:
                select_device(parse_device(device), verbose=False)
            except ValueError as error:
                raise IMAError(f"devices={device}: {one_line(error)}") from error
