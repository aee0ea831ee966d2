from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics.data.utils import check_det_dataset

from ima_yolo.config import validate
from ima_yolo.errors import IMAError
from ima_yolo.experiment import identity
from ima_yolo.experiment import study as module
from ima_yolo.experiment.arms import NAMED, Arm
from ima_yolo.experiment.identity import data_identity, model_identity, teacher_identity
from ima_yolo.experiment.images import held_out, hold_out, label_path
from ima_yolo.experiment.setup import build_study, read_slots
from ima_yolo.experiment.study import Job, Study, load_study, read_seeds
from ima_yolo.files import write_json

# What a worker loads beside the code that trains and measures: it reads, writes, refuses and draws.
CANNOT_CHANGE_A_TRAINING = {
    *("errors.py", "files.py", "lists.py", "plain_yaml.py"),
    *(
        "data_archive.py",
        "kept.py",
        "plain_files.py",
        "ranges.py",
        "run_folder.py",
        "trust.py",
        "versions.py",
        "pictures/column.py",
        "pictures/grid.py",
        "pictures/sources.py",
        "pictures/tile.py",
    ),
    *("experiment/arms.py", "experiment/identity.py", "experiment/study.py"),
    *("experiment/report/analysis.py", "experiment/report/measured.py", "experiment/report/mistakes.py"),
}
SHARED = {"epochs": 1}
MADE_OF = {"teacher": {"name": "t.pt", "digest": "a"}, "data": {"name": "d.yaml", "digest": "b"}, "holdout": None}
PLACES = {"teacher": "here/t.pt", "model": "yolo26n.yaml", "data": "here/d.yaml"}


def make(folder: Path, **changes: Any) -> Study:
    values = {"made_of": MADE_OF, "common": SHARED, "places": PLACES, "arms": (NAMED["none"], NAMED["ima"])}
    return Study(folder, **{**values, "seeds": (0, 1), **changes})


def test_trainings_go_seed_by_seed(tmp_path: Path) -> None:
    assert [job.name for job in make(tmp_path).jobs()] == ["none-seed0", "ima-seed0", "none-seed1", "ima-seed1"]


def test_a_study_comes_back_from_its_folder(tmp_path: Path) -> None:
    study = make(tmp_path, against=("none",), title="T", command=("ima-yolo", "compare"))
    study.save()
    assert load_study(tmp_path) == study
    assert load_study(tmp_path).command == study.command
    with pytest.raises(IMAError, match="no study here"):
        load_study(tmp_path / "elsewhere")


def test_arms_and_seeds_may_be_added(tmp_path: Path) -> None:
    make(tmp_path).save()
    make(tmp_path, arms=(NAMED["none"], NAMED["ima"], NAMED["cwd"]), seeds=(0, 1, 2)).save()
    assert len(list(load_study(tmp_path).jobs())) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made_of": {**MADE_OF, "teacher": {"name": "t.pt", "digest": "c"}}}, "another study (teacher differs)"),
        ({"made_of": {**MADE_OF, "data": {"name": "d.yaml", "digest": "c"}}}, "another study (data differs)"),
        ({"made_of": {**MADE_OF, "holdout": 0.3}}, "holds another study (holdout differs)"),
        ({"common": {**SHARED, "epochs": 2}}, "holds another study (epochs differs)"),
    ],
)
def test_what_would_mix_two_studies_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make(tmp_path).save()
    with pytest.raises(IMAError) as caught:
        make(tmp_path, **changes).save(force=True)
    assert message in str(caught.value)


@pytest.mark.parametrize("left", ["results/ima-seed7.json", "runs/ima-seed0/weights/last.pt"])
def test_an_arm_keeps_its_settings_once_something_of_it_was_trained(tmp_path: Path, left: str) -> None:
    """One that failed at its first step may be mended; a checkpoint might be gone on from as what it is not."""
    mended = make(tmp_path, arms=(NAMED["none"], Arm("ima", "ima", {"ima_weight": 1})))
    make(tmp_path).save()
    for other in ("none", "ima-x"):
        (tmp_path / left.replace("ima", other)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left.replace("ima", other)).touch()
    mended.save()
    assert load_study(tmp_path).arms == mended.arms
    make(tmp_path).save()
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).touch()
    with pytest.raises(IMAError, match="holds an arm 'ima' with other settings; give this one another name"):
        mended.save(force=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [({"ima_mask": "none"}, {}), ({}, {"ima_mask": "none"}), ({"optimizer": None}, {}), ({}, {"optimizer": None})],
)
def test_a_key_that_is_off_may_be_neither_added_nor_dropped(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    make(tmp_path, common={**SHARED, **first}).save()
    with pytest.raises(IMAError, match="holds another study"):
        make(tmp_path, common={**SHARED, **second}).save(force=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(({}, given) for given in ({"lr0": 0.01}, {"ima_mask": "spatial"}, {"ima_balance": 0.5})),
        ({"mosaic": 0}, {"mosaic": 0.0}),
        ({"plots": False}, {"plots": 0}),
        ({"ima_box": 2}, {"ima_box": 2.0}),
        ({"freeze": (1, 2)}, {"freeze": [1, 2]}),
    ],
)
def test_a_value_that_is_spelt_in_another_way_is_no_other(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    before, study = (make(tmp_path, common={**SHARED, **given}) for given in (first, second))
    before.save()
    job = Job(NAMED["ima"], 0)
    made = {"arm": "ima", "seed": 0, "settings": job.arm.settings, "code": identity.code_version()}
    write_json(study.result_path(job), {**made, "shared": load_study(tmp_path).shared_digest(job.arm)})
    study.save()


def test_a_study_that_kept_what_is_off_as_nothing_goes_on(tmp_path: Path) -> None:
    make(tmp_path, common={**SHARED, "ima_mask": None}).save()
    make(tmp_path, common={**SHARED, "ima_mask": "none"}).save()


def test_results_of_other_models_data_or_keys_are_refused(tmp_path: Path) -> None:
    """Also where study.json was removed, which a message about a damaged one had asked for."""
    study = make(tmp_path)
    for job in list(study.jobs())[:2]:
        common = {"arm": job.arm.name, "seed": job.seed, "settings": job.arm.settings, "code": identity.code_version()}
        write_json(study.result_path(job), {**common, "shared": study.shared_digest(job.arm)})
    study.save()
    for changes in (
        {"common": {"epochs": 2}},
        {"common": {**SHARED, "ima_balance": 0}},
        {"made_of": {**MADE_OF, "teacher": {"name": "t.pt", "digest": "z"}}},
    ):
        (tmp_path / "study.json").unlink()
        with pytest.raises(IMAError, match="was made with other models, data or keys"):
            make(tmp_path, **changes).save(force=True)
        study.save()
    (tmp_path / "study.json").unlink()
    other = {"made_of": {**MADE_OF, "teacher": {"name": "t.pt", "digest": "z"}}, "common": {**SHARED, "ima_balance": 0}}
    make(tmp_path, arms=(NAMED["none"], NAMED["cwd"]), **other).save()  # a student without a teacher has none of these


def test_a_study_of_before_there_was_patience_goes_on_where_that_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path).save()
    make(tmp_path, common={**SHARED, "patience": 0}).save()
    long = {"epochs": 300}
    make(tmp_path / "long", common=long).save()
    with pytest.raises(IMAError, match="patience differs"):
        make(tmp_path / "long", common={**long, "patience": 0}).save()


def test_the_same_files_under_other_names_and_in_other_places_go_on(tmp_path: Path) -> None:
    make(tmp_path / "a").save()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = {**MADE_OF, "teacher": {"name": "renamed.pt", "digest": "a"}}
    make(tmp_path / "b", made_of=moved, places={**PLACES, "teacher": "there/renamed.pt"}).save()
    assert load_study(tmp_path / "b").places["teacher"] == "there/renamed.pt"
    assert str(tmp_path) not in (tmp_path / "a" / "study.json").read_text()
    assert "here" not in (tmp_path / "a" / "study.json").read_text()


def test_a_study_of_an_earlier_format_is_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"teacher": "t.pt", "common": {}, "arms": [], "seeds": []})
    with pytest.raises(IMAError, match="format differs"):
        make(tmp_path).save()
    with pytest.raises(IMAError, match="earlier version"):
        load_study(tmp_path)


def test_other_code_is_refused_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path).save()
    monkeypatch.setattr(module, "code_version", lambda: {"ima_yolo": "other"})
    with pytest.raises(IMAError, match=r"begun with other code or packages \(.*ima_yolo \w+, now other"):
        make(tmp_path).save()
    make(tmp_path).save(force=True)


def test_results_of_other_settings_or_code_are_refused(tmp_path: Path) -> None:
    """Also where the arm was left out in between, or its result came from another folder."""
    study = make(tmp_path, arms=(NAMED["none"], NAMED["cwd"]))
    job = Job(NAMED["cwd"], 1)
    made = {"arm": "cwd", "seed": 1, "settings": NAMED["cwd"].settings, "code": identity.code_version()}
    write_json(study.result_path(job), made)
    study.save()
    make(tmp_path).save()
    other = make(tmp_path, arms=(NAMED["none"], Arm("cwd", "ima", {"ima_loss": "cwd", "ima_temperature": 4})))
    with pytest.raises(IMAError, match="cwd-seed1 was made with other settings"):
        other.save(force=True)
    write_json(study.result_path(job), {**made, "code": {"torch": "1.0"}})
    with pytest.raises(IMAError, match=r"cwd-seed1 was made with other code or packages \(.*torch 1\.0, now "):
        study.save()
    study.save(force=True)


def test_the_code_version_covers_every_file_that_trains() -> None:
    package = Path(identity.__file__).parents[1]
    covered = {file for pattern in identity.TRAINING_CODE for file in package.glob(pattern)}
    listing = "import sys, ima_yolo.experiment.worker; print([m for m in sys.modules if m.startswith('ima_yolo.')])"
    found = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    loaded = {Path(name.removeprefix("ima_yolo.").replace(".", "/")) for name in ast.literal_eval(found.stdout)}
    files = {package / name.with_suffix(".py") for name in loaded if not (package / name).is_dir()}
    assert {file.relative_to(package).as_posix() for file in files - covered} <= CANNOT_CHANGE_A_TRAINING
    assert all(list(package.glob(pattern)) for pattern in identity.TRAINING_CODE), "a pattern matches nothing"


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"score": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_json(path, {"score": 2})
    assert json.loads(path.read_text()) == {"score": 1}
    assert list(tmp_path.iterdir()) == [path], "nothing half-written stays"


def test_what_mends_a_damaged_study_is_told(tmp_path: Path) -> None:
    """`ima-yolo report`, which reads it, does not make it again."""
    make(tmp_path).save()
    for content in ("{", '{"made_of": 3}'):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(IMAError, match="remove it and give the study's own command again"):
            load_study(tmp_path)
    (tmp_path / "study.json").unlink()
    make(tmp_path).save()
    assert load_study(tmp_path).arms == make(tmp_path).arms


def test_a_damaged_result_is_one_line(tmp_path: Path) -> None:
    study = make(tmp_path)
    path = study.result_path(Job(NAMED["none"], 0))
    path.parent.mkdir()
    path.write_text('{"arm": ')
    with pytest.raises(IMAError, match=r"none-seed0\.json: cannot be read"):
        study.results()


@pytest.mark.parametrize(("given", "seeds"), [(0, (0,)), ("0,1,2", (0, 1, 2)), ((3, 4), (3, 4)), ([5], (5,))])
def test_seeds_in_every_spelling(given: Any, seeds: tuple[int, ...]) -> None:
    assert read_seeds(given) == seeds


@pytest.mark.parametrize("given", ["", "a", -1, (0, 0), None])
def test_wrong_seeds_are_refused(given: Any) -> None:
    with pytest.raises(IMAError, match="seeds="):
        read_seeds(given)


@pytest.mark.parametrize(
    ("devices", "jobs", "slots"),
    [
        (None, None, [None]),
        (None, 3, [None, None, None]),
        ("cpu", None, ["cpu"]),
        ((0, 1), None, ["0", "1"]),
        ((0, 1), 5, ["0", "1", "0", "1", "0"]),
        (0, 8, ["0"] * 8),
    ],
)
def test_trainings_are_dealt_out_over_devices(devices: Any, jobs: Any, slots: list[str | None]) -> None:
    assert read_slots(devices, jobs) == slots


def test_models_are_known_by_what_they_hold(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny_checkpoint()
    shutil.copyfile(path, tmp_path / "renamed.pt")
    first, renamed = (model_identity(str(p), "teacher") for p in (path, tmp_path / "renamed.pt"))
    assert first["digest"] == renamed["digest"]
    assert first["digest"] != model_identity(str(tiny_checkpoint(seed=5)), "teacher")["digest"]
    assert model_identity("yolo26n.yaml", "student") != model_identity("yolo26s.yaml", "student")


def test_teachers_are_known_by_what_they_hold_or_are_called(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    def digest(teacher: str, weights: Any = None) -> str:
        return teacher_identity(validate({"teacher": teacher, "ima_teacher_weights": weights}))["digest"]

    one, two = str(tiny_checkpoint()), str(tiny_checkpoint(seed=5))
    shutil.copyfile(one, tmp_path / "ONE.PT")
    assert digest(one) == digest(str(tmp_path / "ONE.PT")) == model_identity(one, "teacher")["digest"]
    assert len({digest(one), digest(two), digest(f"{one},{two}"), digest(f"{two},{one}")}) == 4
    detector, state = "torchvision:retinanet_resnet50_fpn", tmp_path / "state.pt"
    state.write_bytes(b"one")
    first = digest(detector, str(state))
    state.write_bytes(b"two")
    assert len({digest(detector), digest(detector, "DEFAULT"), first, digest(detector, str(state))}) == 4
    assert digest("package.module:make") != digest("package.module:other")


def test_data_is_known_by_names_sizes_and_labels(tiny_data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_data.parent, moved)
    content = {**yaml.safe_load(tiny_data.read_text()), "path": str(moved)}
    (moved / "data.yaml").write_text(yaml.safe_dump(content))

    def digest(path: Path) -> str:
        return data_identity(str(path), check_det_dataset(str(path)))["digest"]

    assert digest(tiny_data) == digest(moved / "data.yaml")
    label = moved / "labels" / "train" / "0.txt"
    before = label.read_text()
    label.write_text(before.replace("0.", "0.1", 1))
    assert digest(tiny_data) != digest(moved / "data.yaml"), "a label changed"
    label.write_text(before)
    (moved / "images" / "val" / "0.png").unlink()
    assert digest(tiny_data) != digest(moved / "data.yaml"), "an image is gone"


def test_the_held_out_part_is_the_same_for_any_order() -> None:
    names = [f"{index}.png" for index in range(1000)]
    chosen = held_out(names, 0.3)
    assert len(chosen) == 300
    assert chosen == held_out(reversed(names), 0.3)
    assert held_out(["a", "b"], 0.999) < {"a", "b"}, "something is left to train on"
    assert len(held_out(["a", "b"], 0.001)) == 1


def test_holding_out_splits_train_and_leaves_the_originals_alone(tiny_data: Path, tmp_path: Path) -> None:
    before = sorted(tiny_data.parent.rglob("*"))
    source = check_det_dataset(str(tiny_data))
    made = hold_out(source, 0.25, tmp_path / "data")
    found = check_det_dataset(str(made))
    parts = {part: {file.name for file in Path(found[part]).iterdir()} for part in ("train", "val")}
    assert (len(parts["train"]), len(parts["val"])) == (6, 2)
    assert not parts["train"] & parts["val"]
    assert parts["train"] | parts["val"] == {file.name for file in Path(source["train"]).iterdir()}
    for image in Path(found["val"]).iterdir():
        assert label_path(image).read_text() == label_path(Path(source["train"]) / image.name).read_text()
    assert found["names"] == source["names"]
    assert sorted(tiny_data.parent.rglob("*")) == before
    stamp = made.stat().st_mtime_ns
    assert hold_out(source, 0.25, tmp_path / "data").stat().st_mtime_ns == stamp, "an intact split is kept"


def test_a_split_whose_links_broke_is_made_again(tiny_data: Path, tmp_path: Path) -> None:
    source = check_det_dataset(str(tiny_data))
    hold_out(source, 0.25, tmp_path / "data")
    broken = next((tmp_path / "data" / "images" / "train").iterdir())
    broken.unlink()
    broken.symlink_to(tmp_path / "nowhere.png")
    hold_out(source, 0.25, tmp_path / "data")
    assert broken.exists()


def test_teachers_are_loaded_once_for_all_arms_that_have_the_same(
    tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima_yolo import pairing

    loaded = []
    real = pairing.load_teacher
    monkeypatch.setattr(pairing, "load_teacher", lambda *given: loaded.append(given) or real(*given))
    options = {"teacher": str(tiny_checkpoint(seed=1)), "student": str(tiny_checkpoint()), "data": str(tiny_data)}
    arms = [Arm(f"m{ratio}", "ima", {"ima_mask_ratio": ratio}) for ratio in (0.2, 0.4, 0.6)]
    build_study(tmp_path / "study", options, tuple(arms), (0,))
    assert len(loaded) == 1
    other = Arm("sure", "ima", {"ima_teacher_conf": 0.5, "ima_objects": "teacher"})
    build_study(tmp_path / "study", options, (*arms, other), (0,))
    assert [conf for _, _, conf in loaded[1:]] == [0.25, 0.5]
