"""Hostile data sets and resumed runs: archives, converted sets, caches of labels, and what a checkpoint would open."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.data import dataset

from ima_yolo import IMATrainer, cli
from ima_yolo.checkpoint import pack
from ima_yolo.config import validate
from ima_yolo.data_set import converted, guard_caches, images_in, is_converted, read_data_set
from ima_yolo.errors import IMAError
from ima_yolo.host import load_model
from ima_yolo.preflight import prepare
from ima_yolo.students import load_student

SCRIPT = "train: gone\nval: gone\nnames: [a]\ndownload: open('touched', 'w')\n"


class Code:
    """Makes the file `touched` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched").absolute(),))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ultralytics' folder of data sets, a new one."""
    folder = tmp_path / "datasets"
    for module in ("ima_yolo.data_set", "ultralytics.data.utils", "ultralytics.data.converter"):
        monkeypatch.setattr(f"{module}.DATASETS_DIR", folder)
    return folder


@pytest.fixture
def own_set(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the drawn set, whose description says `path: .`."""
    root = shutil.copytree(tiny_data.parent, tmp_path / "set", ignore=shutil.ignore_patterns("*.cache"))
    (root / "data.yaml").write_text(tiny_data.read_text().replace(f"path: {tiny_data.parent}\n", ""))
    return root


def packed(kind: str, target: Path, files: dict[str, bytes]) -> Path:
    """Write an archive, compressed."""
    path = target / f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def content(root: Path) -> dict[str, bytes]:
    return {f"set/{file.relative_to(root)}": file.read_bytes() for file in root.rglob("*") if file.is_file()}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "a bomb of aliases": ({"set/data.yaml": BOMB.encode()}, "data.yaml in it: more than 200000 values"),
    "a tag": ({"set/data.yaml": b"a: !!python/object/apply:pathlib.Path.touch [touched]\n"}, "could not determine"),
    "depth": ({"set/data.yaml": b"a: " + b"[" * 5000 + b"]" * 5000}, "nested too deeply"),
    "a long one": ({"set/data.yaml": b"a: " + b"x" * (2**24)}, "larger than 16 MiB"),
    "any YAML": ({"set/data.yaml": b"names: [a]\n", "set/deep/x.YML": BOMB.encode()}, "x.YML in it: more than"),
}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_is_refused_before_it_is_unpacked(
    case: str, kind: str, datasets: Path, tmp_path: Path
) -> None:
    files, reason = ARCHIVES[case]
    path = packed(kind, tmp_path, files)
    with pytest.raises(IMAError, match=reason) as caught:
        read_data_set(str(path))
    assert "\n" not in str(caught.value)
    assert not datasets.exists()
    assert not Path("touched").exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_grows_is_refused(
    kind: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ima_yolo.data_archive.LEAST_BOUND", 2**20)
    path = packed(kind, tmp_path, {"set/data.yaml": b"names: [a]\n", "set/a.png": bytes(2**22)})
    with pytest.raises(IMAError, match="refused, since it unpacks to more than 1 MiB"):
        read_data_set(str(path))
    monkeypatch.setattr("ima_yolo.data_archive.LEAST_BOUND", 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 2**20))
    with pytest.raises(IMAError, match=r"unpacks to 4 MiB, and .* has 1 MiB left"):
        read_data_set(str(path))
    assert not datasets.exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_sound_archive_is_read_and_keeps_to_its_folder(
    kind: str, own_set: Path, datasets: Path, tmp_path: Path
) -> None:
    files = content(own_set)
    found = read_data_set(str(packed(kind, tmp_path, files)))
    assert Path(found["train"]) == datasets / "set" / "images" / "train"
    assert len(list(images_in(found["train"]))) == 8
    for change in (
        {"train": str(own_set / "images" / "train")},
        {"val": "../../set/images/val"},
        {"train": "list.txt"},
    ):
        shutil.rmtree(datasets)
        told = {"train": "images/train", "val": "images/val", "names": ["a", "b", "c"], **change}
        listing = f"{own_set}/images/train/0.png\n".encode()
        path = packed(kind, tmp_path, {**files, "set/data.yaml": json.dumps(told).encode(), "set/list.txt": listing})
        with pytest.raises(IMAError, match=r"names .*, outside of the archive"):
            read_data_set(str(path))


def test_ultralytics_trains_on_what_was_looked_through(
    own_set: Path, datasets: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = packed("zip", tmp_path, content(own_set))
    models = {"teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1)), "student": str(tiny_checkpoint())}
    trainer = IMATrainer(overrides={**models, "data": str(path), "project": str(tmp_path / "runs"), "imgsz": 64})
    assert trainer.args.data == str(datasets / "set" / "data.yaml")
    assert trainer.data["val"] == str(datasets / "set" / "images" / "val")


def test_members_that_would_leave_the_folder_are_not_written(own_set: Path, datasets: Path, tmp_path: Path) -> None:
    """Ultralytics' doing, on which `ima_yolo.data_archive` relies."""
    for kind in ("zip", "tar.gz"):
        files = {**content(own_set), "../touched": b"", f"{tmp_path}/touched": b"", "set/../../touched": b""}
        read_data_set(str(packed(kind, tmp_path, files)))
        assert not list(tmp_path.rglob("touched"))
        shutil.rmtree(datasets)


@pytest.mark.parametrize("name", ["data.yaml", "DATA.YAML", "data.YmL"])
def test_a_script_is_not_run_whatever_the_case_of_the_suffix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SCRIPT)
    with pytest.raises(IMAError, match="a script, which is not run"):
        read_data_set(str(tmp_path / name))
    assert not Path("touched").exists()


def write_cache(place: Path) -> None:
    with place.open("wb") as file:
        np.save(file, np.array({"labels": Code()}, dtype=object))


CACHES: dict[str, Callable[[Path], tuple[Path, str]]] = {
    "train": lambda root: (root / "labels" / "train.cache", ""),
    "val": lambda root: (root / "labels" / "val.cache", ""),
    "masks": lambda root: (root / "masks" / "train.cache", ""),
    "masks of another name": lambda root: (root / "planes" / "val.cache", "masks_dir: planes\n"),
    "a deeper folder": lambda root: (root / "labels" / "train" / "a-z.cache", ""),
    "a linked folder": lambda root: (root / "labels" / "train" / "link.cache", ""),
}


@pytest.mark.parametrize("case", CACHES)
def test_no_cache_of_labels_runs_anything(case: str, own_set: Path) -> None:
    """Not one that stands beside the labels of some images only."""
    for folder in ("masks", "planes", "labels/train"):
        (own_set / folder).mkdir(exist_ok=True)
    deep = own_set / "images" / "train" / "a-z"
    deep.mkdir()
    shutil.copy(own_set / "images" / "train" / "0.png", deep)
    (own_set / "elsewhere").mkdir()
    shutil.copy(own_set / "images" / "train" / "0.png", own_set / "elsewhere")
    (own_set / "images" / "train" / "link").symlink_to(own_set / "elsewhere")
    cache, more = CACHES[case](own_set)
    data = own_set / "data.yaml"
    data.write_text(data.read_text() + more)
    read_data_set(str(data))
    write_cache(cache)
    with pytest.raises(IMAError, match=rf"{cache.name}: refused, since it carries code"):
        read_data_set(str(data))
    assert not Path("touched").exists()


def test_a_part_that_is_asked_for_is_looked_at_too(own_set: Path) -> None:
    data = own_set / "data.yaml"
    for part in ("images", "labels"):
        shutil.copytree(own_set / part / "val", own_set / part / "test")
    data.write_text(data.read_text() + "test: images/test\n")
    write_cache(own_set / "labels" / "test.cache")
    read_data_set(str(data))
    with pytest.raises(IMAError, match=r"test\.cache: refused"):
        read_data_set(str(data), "test")
    assert not Path("touched").exists()


def test_a_list_in_any_order_and_with_a_mark_is_looked_through(own_set: Path) -> None:
    data, other = own_set / "data.yaml", own_set / "images" / "a"
    other.mkdir()
    shutil.copy(own_set / "images" / "train" / "0.png", other)
    listed = f"{other}/0.png\n{own_set}/images/train/0.png\n"
    (own_set / "list.txt").write_text(f"\ufeff{listed}", encoding="utf-8")
    data.write_text(data.read_text().replace("train: images/train", "train: list.txt"))
    assert [path.parent.name for path in images_in(str(own_set / "list.txt"))] == ["a", "train"]
    read_data_set(str(data))
    write_cache(own_set / "labels" / "a.cache")
    with pytest.raises(IMAError, match=r"a\.cache: refused"):
        read_data_set(str(data))


@pytest.mark.parametrize(
    "lines", ["", "no JSON", "[" * 5000, '{"type": "dataset"}', '{"a": 1}\n{"split": "train", "file": "../../x.png"}']
)
def test_an_ndjson_file_that_cannot_be_converted_costs_one_line(
    lines: str, datasets: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("bad.ndjson").write_text(lines)
    words = [f"teacher={tiny_checkpoint('yolo26s-few.yaml', seed=1)}", f"student={tiny_checkpoint()}", "epochs=1"]
    assert cli.main(["train", *words, "data=bad.ndjson", "project=runs"]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ima-yolo: ")]
    assert len(said) == 1
    assert said[0].startswith("ima-yolo: data=bad.ndjson: cannot be converted (")
    assert not Path("runs").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("names:", "nc: 150000\nno_names:", "asks for 150000 classes; there may be 20000"),
        ("names:", "names: [" + "a, " * 20001 + "]\nno_names:", "asks for 20001 classes"),
        ("names:", "kpt_shape: [1000000, 3]\nnames:", "kpt_shape asks for 3e+06 numbers of keypoints"),
    ],
)
def test_numbers_that_no_memory_holds_are_refused(
    old: str, new: str, reason: str, own_set: Path, tiny_checkpoint: Callable[..., Path], capfd
) -> None:
    data = own_set / "data.yaml"
    data.write_text(data.read_text().replace(old, new))
    words = [f"teacher={tiny_checkpoint('yolo26s-few.yaml', seed=1)}", "student=yolo26n.yaml", "epochs=1"]
    assert cli.main(["train", *words, f"data={data}", "project=runs"]) == 2
    assert reason in capfd.readouterr().err.splitlines()[-1]
    assert not Path("runs").exists()


@pytest.mark.timeout(60)
def test_a_list_of_images_numbers_no_class_beyond_any_use(datasets: Path) -> None:
    Path("many.ndjson").write_text('{"type": "dataset", "task": "detect", "class_names": {"2000000000": "a"}}\n')
    with pytest.raises(IMAError, match=r"many\.ndjson: has a class of number 2000000000; there may be 20000"):
        converted("many.ndjson", 1.0, "val")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("opening", ["[", "{a: "])
@pytest.mark.parametrize("name", ["deep.yaml", "yolo26n-deep.yaml"])
def test_an_architecture_that_nests_without_end_costs_one_line(
    opening: str, name: str, tiny_data: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Ultralytics' own reader ends the process there; for the second name it reads yolo26-deep.yaml."""
    Path(name.replace("26n", "26")).write_text(f"nc: 1\nbackbone: {opening * 300_000}")
    teacher = tiny_checkpoint("yolo26s-few.yaml", seed=1)
    words = [f"student={name}", f"teacher={teacher}", f"data={tiny_data}", "epochs=1"]
    calls = [["train", *words], ["val", f"model={name}", f"data={tiny_data}"]]
    for call in calls if Path(name).exists() else calls[:1]:
        assert cli.main(call) == 2
        assert capfd.readouterr().err.splitlines()[-1].endswith("deep.yaml: nested too deeply")


def checkpoint_of(
    tiny_checkpoint: Callable[..., Path], settings: dict[str, Any], args: Any, place: Path = Path("run/weights/last.pt")
) -> str:
    """A checkpoint that says of its run what it is told to."""
    saved = torch.load(tiny_checkpoint(), weights_only=False)
    packed_settings = pack(validate({"teacher": "t.pt"}), "", {})
    packed_settings["settings"].update(settings)
    saved.update(epoch=0, ima=packed_settings, train_args=args)
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(saved, place)
    return str(place)


def a_module() -> None:
    Path("harm.py").write_text("from pathlib import Path\nPath('touched').touch()\ndef teach():\n    return None\n")


KEPT: dict[str, tuple[dict[str, Any], Any, str]] = {
    "a function": ({"teacher": "harm:teach"}, {}, "it would run its teacher; if that is yours, add teacher=harm:teach"),
    "an address": ({"teacher": "https://localhost:9/t.pt"}, {}, "it would fetch its teacher"),
    "a published name": ({"teacher": "yolo26x.pt"}, {}, "it would fetch its teacher; .* add teacher=yolo26x.pt"),
    "published weights": (
        {"teacher": "torchvision:retinanet_resnet50_fpn", "ima_teacher_weights": "DEFAULT"},
        {},
        "it would fetch the weights DEFAULT of its teacher; .* add teacher=torchvision:retinanet_resnet50_fpn",
    ),
    "one of two": ({"teacher": "GOOD,harm:teach"}, {}, "it would run its teacher"),
    "data at an address": ({}, {"data": "https://localhost:9/d.zip"}, "it would fetch its data"),
    "a list of addresses": ({}, {"data": "list.ndjson"}, "it would fetch its data; .* add data=list.ndjson"),
    "data that Ultralytics fetches": (
        {},
        {"data": "coco8.yaml"},
        "images not found.*if they are yours, add data=coco8.yaml",
    ),
    "a second teacher": ({}, {"distill_model": "evil.pt"}, "refused, since its distill_model="),
    "values": ({}, {"epochs": "many"}, "its arguments are no good"),
    "no arguments": ({}, None, "holds no arguments of a training"),
    "loose, of another run": ({}, {"save_dir": "ELSEWHERE"}, "lies in no run's folder"),
    "loose, of the folder above": ({}, {"save_dir": "ABOVE"}, "lies in no run's folder"),
    "loose, of no run": ({}, {}, "lies in no run's folder"),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_resumed_run_opens_nothing_that_the_user_did_not_name(
    case: str, tiny_data: Path, tiny_checkpoint: Callable[..., Path], datasets: Path, tmp_path: Path
) -> None:
    settings, args, reason = KEPT[case]
    good = str(tiny_checkpoint("yolo26s-few.yaml", seed=1))
    settings = {**settings, "teacher": settings.get("teacher", good).replace("GOOD", good)}
    a_module()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/ima.yaml").touch()  # as the user's own run has it
    if args is not None:
        args = {"data": str(tiny_data), **args}
        places = {"ELSEWHERE": str(tmp_path / "elsewhere"), "ABOVE": str(Path.cwd())}
        args = {key: places.get(value, value) if isinstance(value, str) else value for key, value in args.items()}
    place = Path("sent/last.pt" if case.startswith("loose") else "run/weights/last.pt")
    last = checkpoint_of(tiny_checkpoint, settings, args, place)
    with pytest.raises(IMAError, match=reason) as caught:
        prepare({"resume": last})
    assert "\n" not in str(caught.value)
    assert not Path("touched").exists()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["ima.yaml"]


LAYERS = "nc: 3\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"


@pytest.mark.timeout(60)  # written out, each would take all the memory there is
@pytest.mark.parametrize(
    "body",
    ["activation: *a11\n" + LAYERS, LAYERS.replace("Conv, [8, 3, 2]", "Conv, *a11"), "backbone: *a11\nhead: *a11\n"],
)
def test_an_architecture_is_no_bomb(body: str) -> None:
    Path("bomb.yaml").write_text(BOMB + body)
    with pytest.raises(IMAError, match=r"student=bomb\.yaml: more than 200000 values") as caught:
        load_student("bomb.yaml")
    assert len(str(caught.value)) < 200


def test_what_is_said_of_an_architecture_is_short() -> None:
    Path("long.yaml").write_text(LAYERS.replace("Conv, [8, 3, 2]", f"Nothing, [{'9, ' * 50000}9]"))
    with pytest.raises(IMAError, match="is no layer") as caught:
        load_student("long.yaml")
    assert len(str(caught.value)) < 250


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", ["names", "yaml", "train_args", "ima"])
def test_a_checkpoint_is_no_bomb(place: str, tiny_checkpoint: Callable[..., Path]) -> None:
    bomb: Any = ["x"] * 10
    for _ in range(11):
        bomb = [bomb] * 10
    saved = torch.load(tiny_checkpoint(), weights_only=False)
    if place == "names":
        saved["model"].names = {0: bomb, 1: "b", 2: "c"}
    elif place == "yaml":
        saved["model"].yaml["activation"] = bomb
    else:
        saved[place] = {"data": bomb}
    torch.save(saved, "bomb.pt")
    with pytest.raises(IMAError, match=r"teacher=bomb\.pt: more than 200000 values"):
        load_model("bomb.pt", "teacher")


@pytest.mark.parametrize(
    ("data", "task", "reason"),
    [
        ("script.yaml", None, "a script, which is not run"),
        ("script.yaml", "classify", "a script, which is not run"),
        ("https://localhost:9/d.yaml", None, "it would fetch its data; if that is yours, add data=https"),
        ("coco8.yaml", None, "images not found.*add data=coco8.yaml"),
    ],
)
def test_a_model_that_is_validated_opens_no_data_of_its_own(
    data: str,
    task: str | None,
    reason: str,
    datasets: Path,
    tiny_checkpoint: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Ultralytics validates on what the checkpoint names where the user names nothing."""
    Path("script.yaml").write_text(SCRIPT)
    saved = torch.load(tiny_checkpoint(), weights_only=False)
    saved["train_args"] = {"data": data, "imgsz": 64}
    if task:
        saved["model"].task = task
    torch.save(saved, "sent.pt")
    assert cli.main(["val", "model=sent.pt", "device=cpu"]) == 2
    assert re.search(reason, capfd.readouterr().err.splitlines()[-1])
    assert not Path("touched").exists()
    assert not datasets.exists()


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "epoch": lambda saved: saved.update(epoch="x"),
    "no settings": lambda saved: saved["ima"].pop("settings"),
    "a list of settings": lambda saved: saved["ima"].update(settings=[1]),
    "settings by number": lambda saved: saved["ima"].update(settings={1: 2}),
    "a fitness that is none": lambda saved: saved.update(best_fitness={}),
    "imgsz": lambda saved: saved["train_args"].update(imgsz=[]),
    "save_dir": lambda saved: saved["train_args"].update(save_dir=5),
    "names": lambda saved: setattr(saved["model"], "names", 5),
    "names by name": lambda saved: setattr(saved["model"], "names", {"a": 1}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_record_costs_one_line(
    case: str, tiny_data: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    good = str(tiny_checkpoint("yolo26s-few.yaml", seed=1))
    saved = torch.load(checkpoint_of(tiny_checkpoint, {"teacher": good}, {"data": str(tiny_data)}), weights_only=False)
    DAMAGED[case](saved)
    torch.save(saved, "run/weights/last.pt")
    assert cli.main(["train", "resume=run/weights/last.pt"]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    reasons = {
        "names": "its class names are neither a list nor numbered",
        "names by name": "its class names are neither",
    }
    reasons |= dict.fromkeys(("imgsz", "save_dir"), "its arguments are no good (imgsz=")
    assert said.startswith("ima-yolo: ")
    assert "last.pt: " in said
    assert reasons.get(case, "says of its training is damaged") in said


def test_what_the_user_names_anew_or_trusts_is_taken(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    a_module()
    good = str(tiny_checkpoint("yolo26s-few.yaml", seed=1))
    last = checkpoint_of(tiny_checkpoint, {"teacher": "harm:teach"}, {"data": "https://localhost:9/d.zip"})
    plan = prepare({"resume": last, "teacher": good, "data": str(tiny_data)})
    assert plan.settings.teacher == good
    assert not Path("touched").exists()
    with pytest.raises(IMAError, match="returned NoneType"):
        prepare({"resume": last, "ima_trust": True, "data": str(tiny_data)})
    assert Path("touched").exists()


def test_the_part_that_a_resumed_run_validates_on_is_checked(
    own_set: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    """With a script for a part that is not there, which Ultralytics would run."""
    good = str(tiny_checkpoint("yolo26s-few.yaml", seed=1))
    data = own_set / "data.yaml"
    data.write_text(data.read_text() + "test: gone\ndownload: open('touched', 'w')\n")
    last = checkpoint_of(tiny_checkpoint, {"teacher": good}, {"data": str(data), "split": "test"})
    with pytest.raises(IMAError, match="a script, which is not run"):
        prepare({"resume": last})
    assert not Path("touched").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[-1, 1, Conv", "[-1, 300000, Conv"),
        ("[-1, 1, Conv", "[-1, .nan, Conv"),
        ("Conv, [8, 3, 2]", "Conv, [4000000, 3, 2]"),
        ("nc: 3\n", "nc: 3\ndepth_multiple: 1.0e+9\n"),
        ("nc: 3\n", "nc: 3\nscales: {n: [0.5, 1.0e+9, 1024]}\n"),
    ],
)
def test_an_architecture_asks_for_no_more_than_networks_have(old: str, new: str) -> None:
    Path("large.yaml").write_text(LAYERS.replace(old, new))
    with pytest.raises(IMAError, match=r"student=large\.yaml: refused, since"):
        load_student("large.yaml")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nc: '20000000'", "asks for 2e\\+07 classes"),
        ("kpt_shape: [2500, 3]", "asks for 7500 numbers of keypoints"),
        ("channels: 10000000", "asks for images of 1e\\+07 channels"),
    ],
)
def test_numbers_of_a_data_set_are_bounded_however_they_are_written(line: str, reason: str) -> None:
    Path("x.yaml").write_text(f"train: a\nval: b\nnames: [a]\n{line}\n")
    with pytest.raises(IMAError, match=reason):
        read_data_set("x.yaml")


def test_a_list_of_images_is_known_by_any_spelling_and_read_from_its_first_line_with_words() -> None:
    for name in ("a.ndjson", "A.NDJSON", "http://x/a.ndjson?x=1", "a.ndjso%6e"):
        assert is_converted(name), name
    Path("many.ndjson").write_text('\n\n{"type": "dataset", "task": "detect", "class_names": {"2000000000": "a"}}\n')
    with pytest.raises(IMAError, match=r"has a class of number 2000000000"):
        converted("many.ndjson", 1.0, "val")


def test_a_cache_beside_depths_is_looked_at_and_every_other_once_it_is_opened(tiny_data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_data.parent, tmp_path / "set", ignore=shutil.ignore_patterns("*.cache")))
    data = root / "data.yaml"
    data.write_text(data.read_text().replace(str(tiny_data.parent), str(root)))
    (root / "depth").mkdir()
    with (root / "depth" / "val.cache").open("wb") as file:
        np.save(file, np.array({"labels": Code()}, dtype=object))
    with pytest.raises(IMAError, match=r"depth/val\.cache: refused, since it carries code"):
        read_data_set(str(data))
    plain = dataset.load_dataset_cache_file
    try:
        guard_caches()
        with pytest.raises(IMAError, match=r"val\.cache: refused, since it carries code"):
            dataset.load_dataset_cache_file(root / "depth" / "val.cache")
    finally:
        dataset.load_dataset_cache_file = plain
    assert not Path("touched").exists()


def test_a_download_of_ultralytics_own_that_fails_is_not_said_to_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """VOC.yaml has a script, which is run since it is Ultralytics' own file."""

    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("offline")

    monkeypatch.setattr("ima_yolo.data_set.check_det_dataset", offline)
    with pytest.raises(IMAError, match=r"^data=VOC\.yaml: offline$"):
        read_data_set("VOC.yaml")
