"""`ima-yolo compare`, `ablate`, `sweep`, `report`: does distillation help on one's own data, and which part of it?"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ima_yolo.commands.options import load_safely, no_bare_words, with_recipe
from ima_yolo.errors import IMAError, is_full_disk
from ima_yolo.lists import as_typed

DEFAULT_ARMS = "none,builtin,ima"
RAY = ("ray", "ray_cpus", "ray_gpus")
OF_ONE = {"arms": "compare", "what": "ablate", "values": "ablate", "space": "sweep", "trials": "sweep"}
SHARED = ("seeds", "holdout", "jobs", "devices", "resume_arms", "force", "project", "name", *RAY)


def compare(options: dict[str, Any]) -> int:
    """Train every arm with every seed under the same conditions, and report paired differences."""
    own, options = _read(options, "arms")
    from ima_yolo.experiment.arms import read_arms

    arms = read_arms(DEFAULT_ARMS if own["arms"] is None else own["arms"])
    return _carry_out("compare", own, options, arms=arms, title="Comparison", against=(arms[0].name, "builtin"))


def ablate(options: dict[str, Any]) -> int:
    """Train the rows of the paper's table, or the readings of one step, and report what each brings."""
    own, options = _read(options, "what", "values")
    from ima_yolo.config import PREFIX
    from ima_yolo.experiment.ablation import read_ablation

    what = own["what"] or "parts"
    arms, against = read_ablation(what, own["values"])
    own["name"] = str(what).removeprefix(PREFIX) if own["name"] is None else own["name"]
    return _carry_out("ablate", own, options, arms=arms, title=f"Ablation: {what}", against=against)


def sweep(options: dict[str, Any]) -> int:
    """Train a grid of settings, or settings that Optuna proposes, and show what each key does."""
    own, options = _read(options, "space", "trials")
    from ima_yolo.experiment.arms import NAMED
    from ima_yolo.experiment.sweep import TRIALS, edges, grid, is_grid, propose_and_run, read_space, tried_arms

    space, trials = read_space(own["space"]), own["trials"]
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise IMAError(f"trials={trials}: expected a whole number from 1 up")
    shown = {"title": f"Sweep: {', '.join(space)}", "against": ("none",)}
    if is_grid(space, trials):
        return _carry_out("sweep", own, options, arms=grid(space), **shown)
    none, failed = NAMED["none"], []
    with _prepared(
        "sweep",
        own,
        options,
        arms=(none, *edges(space)),
        begin_with=lambda saved: (none, *tried_arms(saved, space)),
        **shown,
    ) as (study, train):
        together = max(1, _at_once(own) // len(study.seeds))
        asked = trials or TRIALS

        def work(now: Any) -> None:
            if len(now.arms) > 1:
                _print(f"trial {len(now.arms) - 1} of {asked}")
            failed.extend(train(now))

        study = propose_and_run(study, space, asked, together, work)
        _report(study)
    return 1 if _say_what_is_open(study) or failed else 0


def _at_once(own: Mapping[str, Any]) -> int:
    """How many trainings run at a time."""
    from ima_yolo.experiment.setup import read_slots

    if own["ray"] and own["jobs"] is None:
        from ima_yolo.experiment.cluster import room

        return room(*_ray_shares(own))
    return len(read_slots(own["devices"], own["jobs"]))


def _read(options: dict[str, Any], *own_keys: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the keys of an experiment from those of its trainings."""
    load_safely()
    options = with_recipe(no_bare_words(options))
    if options.pop("ima_trust", False):
        raise IMAError("ima_trust=True: train that teacher or student alone first; a study trusts no file")
    for key in own_keys:
        if key in options and options[key] is None:
            options[key] = "none"  # the name of an arm, which a value of one word turns into nothing
    own = {key: options.pop(key, None) for key in (*SHARED, *own_keys)}
    if others := sorted(OF_ONE.keys() & options.keys()):
        raise IMAError(f"{others[0]}=: a key of `ima-yolo {OF_ONE[others[0]]}`, which this command does not have")
    for key in ("force", "resume_arms"):
        if not isinstance(own[key], bool | None):
            raise IMAError(f"{key}={own[key]}: expected True or False")
    return own, options


def _carry_out(command: str, own: Mapping[str, Any], options: dict[str, Any], **study_keys: Any) -> int:
    """Check, train what is open, report."""
    with _prepared(command, own, options, **study_keys) as (study, train):
        failed = train(study)
        _report(study)
    return 1 if _say_what_is_open(study) or failed else 0


@contextmanager
def _prepared(
    command: str, own: Mapping[str, Any], options: dict[str, Any], begin_with: Any = None, **study_keys: Any
) -> Iterator[tuple[Any, Callable[[Any], list[Any]]]]:
    """Check everything, lay the study out, and hold it for this call.

    Args:
        command: The command's name.
        own: Keys of the experiment.
        options: Keys of its trainings.
        begin_with: From the arms in the study's folder, gives those to begin with; by default those that were checked.
        **study_keys: Of `build_study`.

    Yields:
        The study, and what trains all that a study has open and returns the failed trainings.
    """
    from ima_yolo.experiment.calls import claimed
    from ima_yolo.experiment.runner import run
    from ima_yolo.experiment.setup import build_study, check_devices, lay_out, read_slots
    from ima_yolo.experiment.study import read_seeds, saved_arms
    from ima_yolo.plain_files import check_tree

    folder = _folder(own["project"] or f"runs/{command}", command if own["name"] is None else own["name"])
    check_tree(folder, read="data")
    slots = read_slots(own["devices"], own["jobs"])
    check_devices(slots)
    seeds = read_seeds(0 if own["seeds"] is None else own["seeds"])
    known = {key: value for key, value in own.items() if key not in {"force", "resume_arms"} and value is not None}
    words = _words(command, {**known, **options})
    study = build_study(folder, options, seeds=seeds, holdout=own["holdout"], command=words, **study_keys)
    if begin_with is not None:
        study = type(study)(**{**vars(study), "arms": begin_with(saved_arms(folder))})
    start = _ray_starter(own)
    given_up: set[str] = set()  # until the next call: a sweep comes here again and again

    def train(now: Any) -> list[Any]:
        now.save(force=True)
        places = slots
        if start is not None and own["jobs"] is None:
            places = [None] * len(list(now.jobs()))  # the cluster queues what it has no room for
        failed = run(now, places, _print, start, bool(own["resume_arms"]), given_up)
        given_up.update(job.name for job in failed)
        return failed

    with claimed(study, grows=begin_with is not None):
        lay_out(study, bool(own["force"]), together=len(slots) > 1 or start is not None)
        if len(seeds) == 1:
            _print("one seed gives no interval, and so no evidence; seeds=0,1,2 does")
        yield study, train


def _folder(project: Any, name: Any) -> Path:
    """Where a study lies; one that is named ".." would be written beside others."""
    folder, parts = Path(str(project)) / str(name), Path(str(name)).parts
    if not parts or ".." in parts or Path(str(name)).is_absolute():
        raise IMAError(f"name={name}: expected the name of a folder inside project=")
    return folder.absolute()


def report(options: dict[str, Any]) -> int:
    """Write the report of a study again, for example after its folder was copied."""
    load_safely()
    options = no_bare_words(options)
    folder, pictures = options.pop("study", None), options.pop("pictures", True)
    if not folder:
        raise IMAError("study= is missing: give a study's folder, for example study=runs/compare/compare")
    if options or not isinstance(pictures, bool):
        raise IMAError(f"'{next(iter(options), 'pictures')}': report takes study= and pictures=False alone")
    from ima_yolo.experiment.study import load_study
    from ima_yolo.plain_files import check_tree

    check_tree(Path(str(folder)).absolute(), read="data", apart="runs")
    study = load_study(Path(str(folder)).absolute())
    if not study.results():
        raise IMAError(f"study={folder}: no training is finished yet")
    _report(study, pictures)
    return 0


def _report(study: Any, pictures: bool = True) -> None:
    from ima_yolo.experiment.report.page import write_report
    from ima_yolo.experiment.tables import (
        HALF,
        comparison,
        conclusions,
        markdown,
        not_shown,
        nothing_to_compare,
        same_conditions,
        trials_told,
    )

    results = study.complete_results()
    rows = comparison(results, [arm.name for arm in study.arms], against=study.against)
    said = [HALF] if any(row["half"] is not None for row in rows) else []
    said += [*trials_told(study.arms), *conclusions(rows), *same_conditions(results, study.common)]
    said += [*nothing_to_compare(results), *not_shown(study.not_of_this_call())]
    print(f"\n{markdown(rows)}\n", *said, sep="\n")
    if not results:
        return
    try:
        for path in write_report(study, _print, pictures):
            print(f"report {path}")
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise IMAError(
            f"{study.folder}: the disk has no room for the report; what is finished is kept, and "
            f"`ima-yolo report study={study.folder}` writes it once there is room"
        ) from error


def _say_what_is_open(study: Any) -> int:
    """Say how many trainings have no result, and return their number."""
    jobs = list(study.jobs())
    if missing := sum(not study.is_finished(job) for job in jobs):
        _print(f"{missing} of {len(jobs)} trainings are not finished; the same command goes on")
    return missing


def _ray_starter(own: Mapping[str, Any]) -> Any:
    if not own["ray"]:
        if given := [key for key in RAY if own[key] is not None]:
            raise IMAError(f"{given[0]}=: needs ray=auto, ray=local or ray=ADDRESS")
        return None
    if own["devices"] is not None:
        raise IMAError("devices=: Ray chooses them; use ray_gpus= to say how much of one a training takes")
    from ima_yolo.experiment.cluster import starter

    return starter(str(own["ray"]), *_ray_shares(own))


def _ray_shares(own: Mapping[str, Any]) -> tuple[float, float | None]:
    """CPU cores and GPUs that a training takes of a cluster; None is for the cluster to say."""
    cpus = 1 if own["ray_cpus"] is None else own["ray_cpus"]
    for key, value in (("ray_cpus", cpus), ("ray_gpus", own["ray_gpus"])):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise IMAError(f"{key}={value}: expected a number from 0 up")
    return cpus, own["ray_gpus"]


def _words(command: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The command line that does the same again."""
    words = [f"{key}={as_typed(value)}" for key, value in given.items()]
    return ("ima-yolo", command, *(shlex.quote(word) for word in words))


def _print(line: str) -> None:
    print(line, flush=True)
