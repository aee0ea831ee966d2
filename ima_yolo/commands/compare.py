"""`ima-yolo compare`: does distillation help, on one's own data?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ima_yolo.commands.options import load_safely, no_bare_words, with_recipe
from ima_yolo.errors import IMAError

OWN = ("arms", "seeds", "jobs", "devices", "force", "project", "name")
DEFAULT_ARMS = "none,builtin,ima"


def compare(options: dict[str, Any]) -> int:
    """Train every arm with every seed under the same conditions, and report paired differences."""
    load_safely()
    options = with_recipe(no_bare_words(options))
    if options.get("arms", "") is None:
        options["arms"] = "none"  # the name of an arm, which a value of one word turns into nothing
    own = {key: options.pop(key, None) for key in OWN}
    from ima_yolo.experiment.runner import run
    from ima_yolo.experiment.tables import comparison, markdown, same_conditions

    slots, study = _slots(own), _study(own, options)
    study.save(force=bool(own["force"]))
    failed = run(study, slots, lambda line: print(line, flush=True))
    results = study.results()
    table = markdown(comparison(results, [arm.name for arm in study.arms]))
    faults = same_conditions(results)
    report = study.folder / "report.md"
    report.write_text("\n\n".join(["# Comparison", table, *faults]) + "\n", encoding="utf-8")
    print(f"\n{table}\n", *faults, f"report {report}", sep="\n")
    return 1 if failed else 0


def _study(own: dict[str, Any], options: dict[str, Any]) -> Any:
    from ima_yolo.config import split
    from ima_yolo.experiment.arms import read_arms
    from ima_yolo.experiment.study import Study, read_seeds
    from ima_yolo.preflight import prepare

    arms, seeds = read_arms(own["arms"] or DEFAULT_ARMS), read_seeds(0 if own["seeds"] is None else own["seeds"])
    project, name = Path(str(own["project"] or "runs/compare")), str(own["name"] or "compare")
    teacher = prepare({**options, "project": str(project.absolute())}).settings.teacher
    ours, rest = split(options)
    ours.pop("teacher")
    return Study((project / name).absolute(), teacher, {**rest, **ours}, arms, seeds)


def _slots(own: dict[str, Any]) -> list[str | None]:
    """Devices of the trainings that run at a time: `devices=0,1` gives one each, `jobs=2` two on the default one."""
    if own["devices"] is not None:
        given = own["devices"]
        listed = list(given) if isinstance(given, (list, tuple)) else [given]
        devices = given.split(",") if isinstance(given, str) else listed
        return [str(device) for device in devices]
    jobs = 1 if own["jobs"] is None else own["jobs"]
    if not isinstance(jobs, int) or jobs < 1:
        raise IMAError(f"jobs={jobs}: expected a whole number from 1 up")
    return [None] * jobs
