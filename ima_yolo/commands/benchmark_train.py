"""`ima-yolo benchmark train`: what does a training step cost with a teacher?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ima_yolo.commands.options import faults_of_the_user, folder_to_write, load_safely, whole_number
from ima_yolo.errors import IMAError, nearest

OWN = ("student", "imgsz", "batch", "rounds", "device", "threads", "output")


def benchmark_train(options: dict[str, Any]) -> int:
    """Time plain, Ultralytics' distilling and our steps in turns; print the table, write plot and figures."""
    load_safely()
    settings, teacher = _settings(options)
    student = str(options.get("student") or "")
    if not student:
        raise IMAError("student= is missing: give an architecture or a checkpoint, for example student=yolo26n.yaml")
    sizes = _sizes(options.get("imgsz", 320))
    batch, rounds = (whole_number(options, key, default) for key, default in (("batch", 8), ("rounds", 7)))
    import torch
    from ultralytics.nn.modules import Classify

    from ima_yolo.export.machine import MOST_THREADS
    from ima_yolo.pairing import located
    from ima_yolo.preflight import check_device
    from ima_yolo.speed.case import Case, head_of
    from ima_yolo.speed.run import run
    from ima_yolo.students import kind_of_path

    device = check_device(options.get("device"))
    torch.set_num_threads(whole_number(options, "threads", torch.get_num_threads(), MOST_THREADS))
    changed = tuple(sorted((key, value) for key, value in settings.items() if key != "teacher"))
    with faults_of_the_user():
        pair = _file("student", student), _file("teacher", located(teacher))
        if (kind := kind_of_path(pair[0])) != "detect":
            raise IMAError(
                f"student={student}: a model for {kind}; the steps of detectors with YOLO's head are measured"
            )
        if issubclass(head_of(pair[1])[0], Classify):
            raise IMAError(f"teacher={teacher}: a classification model has no feature pyramid; give a detector")
        cases = [Case(*pair, size, batch, changed) for size in sizes]
        output = folder_to_write(options.get("output") or f"runs/benchmark-train/{device.type}")
        report = run(cases, device, rounds, output, lambda line: print(line, flush=True))
    print(f"\n{report.read_text(encoding='utf-8')}\nResults saved to {output}")
    return 0


def _settings(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Our settings among the options, and the one teacher that is measured."""
    from ima_yolo.config import own_keys, validate

    if "cfg" in options:
        raise IMAError("cfg= is not read by benchmark train: give the settings that it shall measure as key=value")
    for key in options:
        if key not in own_keys() | set(OWN):
            raise IMAError(f"'{key}' is not a setting of benchmark train{nearest(key, own_keys() | set(OWN))}")
    if options.get("ima_unlabelled") is not None:
        raise IMAError("ima_unlabelled= is not measured by benchmark train: its steps are of one labelled batch")
    settings = {key: value for key, value in options.items() if key not in OWN}
    teachers = validate(settings).teachers
    from ima_yolo.teachers.load import is_file

    if len(teachers) != 1 or not is_file(teachers[0]):
        raise IMAError(
            f"teacher={','.join(teachers)}: benchmark train measures one teacher, an architecture or a checkpoint of "
            "Ultralytics"
        )
    return settings, teachers[0]


def _file(key: str, name: str) -> str:
    """An architecture or a checkpoint that is there; "yolo26n" is the architecture, whose weights cost no time."""
    from ima_yolo.host import load_model
    from ima_yolo.students import read_architecture

    if name.endswith(".pt"):
        if not Path(name).is_file():
            raise IMAError(f"{key}={name}: no such file")
        load_model(name, key)
        return name
    architecture = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    read_architecture(architecture, key)
    return architecture


def _sizes(given: Any) -> list[int]:
    from ima_yolo.ranges import LARGEST, are_sizes

    sizes = list(given) if isinstance(given, (list, tuple)) else [given]
    if not are_sizes(sizes) or any(size % 32 for size in sizes):
        raise IMAError(f"imgsz={given}: expected multiples of 32 to {LARGEST}, such as imgsz=320,640")
    return sizes
