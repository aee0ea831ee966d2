"""What a report says, as sections of text, tables and figures; how it looks is left to `page.py`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ima_yolo.experiment.arms import TEACHER
from ima_yolo.experiment.report import figures
from ima_yolo.experiment.report.examples import example_figures
from ima_yolo.experiment.report.figures import Figure
from ima_yolo.experiment.report.measured import Measured, attempt
from ima_yolo.experiment.report.mistakes import KINDS
from ima_yolo.experiment.report.outcome import outcome
from ima_yolo.experiment.report.parts import Section, Table
from ima_yolo.experiment.tables import POINTS, comparison, difference_text, mean_text, plus_minus, setting_text
from ima_yolo.lists import as_typed

MOST_ROWS = 30  # of the table by class


def sections(measured: Measured, say: Callable[[str], None], pictured: bool = True) -> list[Section]:
    """Everything that the report says, in order.

    Args:
        measured: The study.
        say: Receives a line for what could not be made.
        pictured: Whether images of the data are shown.
    """
    rows = comparison(measured.results, measured.arms, against=measured.study.against)
    shown = measured.leading(len(figures.COLOURS))  # those that share a figure have a colour each
    colour = figures.colours(dict.fromkeys([*shown, *measured.arms]))
    pictures: list[Figure] = []
    if pictured:
        attempt("pictures", lambda: pictures.extend(example_figures(measured)), say)
    made = [
        outcome(measured, rows, figures.difference_figures(rows, colour)),
        sweep(measured, rows),
        Section("Curves", curves_text(measured), figures=figures.curve_figures(measured, colour)),
        by_class(measured, figures.precision_figures(measured, colour)),
        errors_and_sizes(measured, figures.bar_figures(measured, colour)),
        efficiency(measured),
        examples(measured, pictures) if pictured else Section("Pictures"),
        provenance(measured),
        again(measured),
    ]
    return [one for one in made if one.text or one.points or one.tables or one.figures or one.code]


def sweep(measured: Measured, rows: Sequence[Mapping[str, Any]]) -> Section:
    """Accuracy by each key of which several values were tried, best arms first."""
    keys = figures.swept_keys(measured.study.arms)
    if not keys:
        return Section("By setting")
    settings = {arm.name: arm.settings for arm in measured.study.arms}
    other = next(iter(measured.study.against), "none")
    lines = [
        [
            row["arm"],
            *(setting_text(settings[row["arm"]].get(key, "")) for key in keys),
            plus_minus(row["mean"], row["half"]),
            difference_text(row["against"].get(other)),
        ]
        for row in sorted(rows, key=lambda row: row["mean"], reverse=True)
    ]
    text = [
        "The best of several arms owes a part of its lead to having been chosen: confirm it with new seeds, and on "
        "images that the choice was not made on, before you rely on it."
    ]
    table = Table(["arm", *keys, "mAP50-95", f"against {other}"], lines, (len(keys) + 1,))
    return Section("By setting", text, tables=[table], figures=figures.sweep_figures(measured, keys))


def curves_text(measured: Measured) -> list[str]:
    """Which arms the curves show, where they are too many for one figure."""
    shown = len(measured.leading(len(figures.COLOURS)))
    return [] if shown == len(measured.arms) else [f"{measured.plain} and the best {shown - 1} other arms."]


def by_class(measured: Measured, made: Sequence[Figure]) -> Section:
    """AP by class, and precision by recall."""
    scores = {arm: [r["map50_95_of_class"] for r in measured.results if r["arm"] == arm] for arm in measured.arms}
    classes = dict.fromkeys(kind for found in scores.values() for one in found for kind in one)
    rows = [
        [kind, *(mean_text([POINTS * one[kind] for one in found if kind in one]) for found in scores.values())]
        for kind in list(classes)[:MOST_ROWS]
    ]
    text = [f"The first {MOST_ROWS} of {len(classes)} classes."] if len(classes) > MOST_ROWS else []
    table = Table(["AP50-95 of class", *scores], rows, tuple(range(1, len(scores) + 1)))
    return Section("By class", text, tables=[table] if rows else [], figures=made)


def errors_and_sizes(measured: Measured, made: Sequence[Figure]) -> Section:
    """Kinds of error and AP by size, for every arm."""
    names = [name for name in (TEACHER, *measured.arms) if measured.of_arm(name)]
    if not names:
        return Section("Kinds of error, sizes of objects")
    rows = []
    for name in names:
        found = measured.of_arm(name)
        rates = {kind: [figures.rate(one, kind) for one in found] for kind in KINDS}
        rows.append([name, *(mean_text(values, 1, interval=False) for values in rates.values())])
    sizes = list(measured.of_arm(names[0])[0]["ap_of_size"])
    of_size = [
        [name, *(mean_text(_scores_of_size(measured.of_arm(name), size), interval=False) for size in sizes)]
        for name in names
    ]
    text = [
        "class: right place, wrong class. location: right class, overlap 0.1 to 0.5. both: neither right. duplicate: a "
        "second box on one object. background: nothing there. missed: an object that nothing found.",
        "These figures come from detections as prediction gives them, one label a box, evaluated by COCO's rules, and "
        "can differ by some tenths from the validation above. Means over seeds.",
    ]
    if unseen := _not_looked_at(measured):
        text.append(f"Not looked at, since their checkpoints are not on this machine: arm {', arm '.join(unseen)}.")
    tables = [
        Table(["per 100 objects", *KINDS], rows, tuple(range(1, len(KINDS) + 1))),
        Table(["AP50-95 of", *sizes], of_size, tuple(range(1, len(sizes) + 1))),
    ]
    return Section("Kinds of error, sizes of objects", text, tables=tables, figures=made)


def _not_looked_at(measured: Measured) -> list[str]:
    """Arms whose detections are missing, of some seeds or of all."""
    told = []
    for name in measured.arms:
        trained, seen = sum(result["arm"] == name for result in measured.results), len(measured.of_arm(name))
        if seen < trained:
            told.append(f"{name} ({trained - seen} of {trained} seeds)" if seen else name)
    return told


def _scores_of_size(found: Sequence[Mapping[str, Any]], size: str) -> list[float]:
    return [POINTS * one["ap_of_size"][size] for one in found if one["ap_of_size"][size] is not None]


def efficiency(measured: Measured) -> Section:
    """Size and speed of teacher and student, and what distillation costs while training."""
    found = measured.efficiency
    if "student" not in found:
        return Section("Size and speed")
    student = found["student"]
    times = found[TEACHER].milliseconds_per_image if TEACHER in found else None
    rows = []
    for row in (found[name] for name in (TEACHER, "student") if name in found):
        own = row.milliseconds_per_image
        speed = f"{times / own:.2f}x" if times and own else ""
        cells = [_or_dash(row.parameters, ",d"), _or_dash(row.gflops, ".2f"), _or_dash(own, ".1f"), speed]
        rows.append([row.name, *cells])
    heads = ["model", "parameters", "GFLOPs", f"ms an image ({student.timing})", "speed-up"]
    text = [
        "All arms end with the same network: a student is as small and as fast with a teacher as without. Times are "
        "medians of 30 passes of the network alone, the models in turn, on the machine that first wrote this report "
        "(remove efficiency.json beside it, and the next report takes them again)."
    ]
    return Section("Size and speed", text, tables=[Table(heads, rows, (1, 2, 3, 4))])


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def examples(measured: Measured, made: Sequence[Figure]) -> Section:
    """Pictures, or why there are none."""
    if not made:
        why = "No pictures: they need the checkpoints of both students and the images, which are not on this machine."
        return Section("Pictures", [why])
    names = {figure.name for figure in made}
    kinds = {"wins": "better", "losses": "worse"}
    none = [
        f"On no image is {measured.distilled} {word} than {measured.plain}."
        for kind, word in kinds.items()
        if kind not in names
    ]
    return Section("Pictures", none, figures=made)


def provenance(measured: Measured) -> Section:
    """Models, data, settings, versions, devices."""
    study = measured.study
    made_of = {role: study.made_of.get(role) for role in ("teacher", "student", "data")}
    rows = [[role, one["name"], one["digest"]] for role, one in made_of.items() if one]
    settings = {**study.common, "holdout": study.made_of.get("holdout"), "seeds": ", ".join(map(str, study.seeds))}
    keys = [[key, as_typed(value)] for key, value in settings.items() if (key, value) != ("holdout", None)]
    arms = [
        [arm.name, arm.kind, ", ".join(f"{key}={as_typed(value)}" for key, value in arm.settings.items())]
        for arm in study.arms
    ]
    versions = {
        name: {r["code"].get(name, "") for r in measured.results} for r in measured.results for name in r["code"]
    }
    versions["device"] = {str(result.get("device", "")) for result in measured.results}
    tables = [
        Table(["what", "file", "digest of its content"], rows),
        Table(["key of all trainings", "value"], keys),
        Table(["arm", "kind", "its own keys"], arms),
        *_in_force(measured.results),
        Table(["what trained", "version"], [[name, ", ".join(sorted(found))] for name, found in versions.items()]),
    ]
    return Section("Settings and versions", tables=tables)


def _in_force(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Our settings as they were, defaults included, which another version may have others of."""
    found: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for key, value in (result.get("in_force") or {}).items():
            of_arm = found.setdefault(key, {}).setdefault(result["arm"], [])
            if str(value) not in of_arm:
                of_arm.append(str(value))
    rows = []
    for key, values in found.items():
        each = {arm: " or ".join(of_arm) for arm, of_arm in values.items()}
        told = ", ".join(f"{arm}: {value}" for arm, value in each.items())
        rows.append([key, told if len(set(each.values())) > 1 else next(iter(each.values()))])
    return [Table(["setting of IMA-YOLO, in force", "value"], rows)] if rows else []


def again(measured: Measured) -> Section:
    """Commands: the whole study, and one training of each arm."""
    study = measured.study
    code = [" ".join(study.command)] if study.command else []
    named = {key: str(study.made_of[key]["name"]) for key in ("teacher", "student", "data") if study.made_of.get(key)}
    if {"teacher", "student", "data"} <= named.keys():
        data = named["data"] if study.made_of.get("holdout") is None else f"{study.folder.name}/data/data.yaml"
        common = {**study.common, "model": named["student"], "data": data, "seed": study.seeds[0]}
        for arm in study.arms:
            options = arm.options(common, named["teacher"])
            words = [shlex.quote(f"{key}={as_typed(value)}") for key, value in options.items()]
            code.append(" ".join(["ima-yolo" if arm.kind == "ima" else "yolo", "train", *words]))
    text = [
        "The first line is the whole study; the others are one training of each arm, where files lie in the folder. A "
        "key that is left out has the default of the version that runs it."
    ]
    return Section("Run it again", text if code else [], code=code)
