"""`ima-yolo compare` and `ablate`: does distillation help on one's own data, and which part of it?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ima_yolo.commands.options import load_safely, no_bare_words, with_recipe
from ima_yolo.errors import IMAError

DEFAULT_ARMS = "none,builtin,ima"
RAY = ("ray", "ray_cpus", "ray_gpus")
SHARED = ("seeds", "holdout", "jobs", "devices", "resume_arms", "force", "project", "name", *RAY)


def compare(options: dict[str, Any]) -> int:
    """Train every arm with every seed under the same conditions, and report paired differences."""
    own, options = _read(options, "arms")
    from ima_yolo.experiment.arms import read_arms

    arms = read_arms(own["arms"] or DEFAULT_ARMS)
    return _carry_out("compare", own, options, arms=arms, title="Comparison", against=(arms[0].name, "builtin"))


def ablate(options: dict[str, Any]) -> int:
    """Train the rows of the paper's table, or the readings of one step, and report what each brings."""
    own, options = _read(options, "what", "values")
    from ima_yolo.experiment.ablation import read_ablation

    what = own["what"] or "parts"
    arms, against = read_ablation(what, own["values"])
    own["name"] = own["name"] or str(what)
    return _carry_out("ablate", own, options, arms=arms, title=f"Ablation: {what}", against=against)


def _read(options: dict[str, Any], *own_keys: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the keys of an experiment from those of its trainings."""
    load_safely()
    options = with_recipe(no_bare_words(options))
    for key in own_keys:
        if key in options and options[key] is None:
            options[key] = "none"  # the name of an arm, which a value of one word turns into nothing
    own = {key: options.pop(key, None) for key in (*SHARED, *own_keys)}
    for key in ("force", "resume_arms"):
        if not isinstance(own[key], bool | None):
            raise IMAError(f"{key}={own[key]}: expected True or False")
    return own, options


def _carry_out(command: str, own: Mapping[str, Any], options: dict[str, Any], **study_keys: Any) -> int:
    from ima_yolo.experiment.runner import run
    from ima_yolo.experiment.setup import build_study, lay_out, read_slots
    from ima_yolo.experiment.study import read_seeds

    slots = read_slots(own["devices"], own["jobs"])
    seeds = read_seeds(0 if own["seeds"] is None else own["seeds"])
    folder = (Path(str(own["project"] or f"runs/{command}")) / str(own["name"] or command)).absolute()
    given = {**{key: value for key, value in own.items() if key not in {"force", "resume_arms"}}, **options}
    study = build_study(
        folder, options, seeds=seeds, holdout=own["holdout"], command=_words(command, given), **study_keys
    )
    start = _ray_starter(own)
    if start is not None and own["jobs"] is None:
        slots = [None] * len(list(study.jobs()))  # the cluster queues what it has no room for
    study = lay_out(study, bool(own["force"]), together=len(slots) > 1)
    if len(seeds) == 1:
        _print("one seed gives no interval, and so no evidence; seeds=0,1,2 does")
    failed = run(study, slots, _print, start, bool(own["resume_arms"]))
    _report(study)
    return 1 if failed else 0


def _report(study: Any) -> None:
    from ima_yolo.experiment.tables import comparison, markdown, same_conditions

    results = study.results()
    rows = comparison(results, [arm.name for arm in study.arms], against=study.against)
    table, faults = markdown(rows), same_conditions(results)
    report = study.folder / "report.md"
    report.write_text("\n\n".join([f"# {study.title}", table, *faults]) + "\n", encoding="utf-8")
    print(f"\n{table}\n", *faults, f"report {report}", sep="\n")


def _ray_starter(own: Mapping[str, Any]) -> Any:
    if not own["ray"]:
        if given := [key for key in RAY if own[key] is not None]:
            raise IMAError(f"{given[0]}=: needs ray=auto, ray=local or ray=ADDRESS")
        return None
    if own["devices"] is not None:
        raise IMAError("devices=: Ray chooses them; use ray_gpus= to say how much of one a training takes")
    from ima_yolo.experiment.cluster import starter

    cpus = 1 if own["ray_cpus"] is None else own["ray_cpus"]
    for key, value in (("ray_cpus", cpus), ("ray_gpus", own["ray_gpus"])):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise IMAError(f"{key}={value}: expected a number from 0 up")
    return starter(str(own["ray"]), cpus, own["ray_gpus"])


def _words(command: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The command line that does the same again."""
    words = [f"{key}={_spelt(value)}" for key, value in given.items() if value is not None]
    return ("ima-yolo", command, *(shlex.quote(word) for word in words))


def _spelt(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _print(line: str) -> None:
    print(line, flush=True)
