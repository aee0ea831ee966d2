"""Pipes, devices and links without end: each costs one line, is not waited for, and leaves no trace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ultralytics.data.dataset import YOLODataset

from ima_yolo import cli
from ima_yolo.data_set import MOST_SEARCHED, images_in, read_data_set
from ima_yolo.errors import IMAError
from ima_yolo.plain_files import check_search, check_source
from ima_yolo.preflight import prepare
from ima_yolo.teachers.module import read_state

pytestmark = pytest.mark.usefixtures("not_waited_for")


@pytest.fixture
def own_set(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the drawn data set; its folder."""
    root = tmp_path / "data"
    shutil.copytree(tiny_data.parent, root, ignore=shutil.ignore_patterns("*.cache"))
    data = root / "data.yaml"
    data.write_text(data.read_text().replace(str(tiny_data.parent), str(root)))
    return root


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")
    return path


def listed(path: Path) -> Path:
    """Name a picture in a list, which the data set then consists of."""
    root = path.parents[1]
    (root / "list.txt").write_text(f"{root / 'images/train/0.png'}\n{path}\n")
    data = root / "data.yaml"
    data.write_text(data.read_text().replace("train: images/train", "train: list.txt"))
    return path


IN_DATA: dict[str, Callable[[Path], Path]] = {
    "a pipe as cache of labels": lambda root: pipe(root / "labels/train.cache"),
    "a pipe as picture": lambda root: pipe(root / "images/train/zz.png"),
    "a device as picture": lambda root: device(root / "images/train/zz.png"),
    "a pipe below": lambda root: pipe(root / "images/val/deep/er/zz.png"),
    "a pipe as picture in a list": lambda root: listed(pipe(root / "more/zz.png")),
    "a device as picture in a list": lambda root: listed(device(root / "images" / "zz.png")),
    "a pipe as array beside a picture": lambda root: pipe(root / "images/train/0.npy"),
    "a pipe as label": lambda root: pipe(root / "labels/train/0.txt"),
    "a device as label": lambda root: device(root / "labels/val/0.txt"),
}


@pytest.mark.parametrize("case", IN_DATA)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_data_set_holds_files_and_folders_alone(
    case: str, trusted: bool, own_set: Path, capfd: pytest.CaptureFixture[str], tiny_checkpoint: Callable[..., Path]
) -> None:
    found = IN_DATA[case](own_set)
    models = (f"teacher={tiny_checkpoint(seed=1)}", f"student={tiny_checkpoint()}")
    trust = ("ima_trust=True",) if trusted and "ULTRALYTICS_SAFE_LOAD" not in os.environ else ()
    words = ("train", *models, f"data={own_set / 'data.yaml'}", "imgsz=64", "epochs=1", "device=cpu", *trust)
    before = sorted(own_set.parent.rglob("*"))
    assert cli.main(words) == 2
    assert f"{found}: expected a file: pipes and devices are not read\n" in capfd.readouterr().err
    assert sorted(own_set.parent.rglob("*")) == before


WRITTEN = {
    "the cache of train": ("labels/train.cache", "home/profile"),
    "the cache of val": ("labels/val.cache", "home/profile"),
    "an array that is not there": ("images/train/1.npy", "home/profile"),
    "an array that is older than its image": ("images/val/2.npy", "home/mine.npy"),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_nothing_is_written_through_a_link_of_a_data_set(case: str, own_set: Path, tmp_path: Path) -> None:
    link, target = (place / name for place, name in zip((own_set, tmp_path), WRITTEN[case], strict=True))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.npy").write_text("mine")
    link.symlink_to(target)
    with pytest.raises(
        IMAError, match=f"^{link}: a link out of its folder, through which would be written; remove it$"
    ):
        read_data_set(str(own_set / "data.yaml"))


def test_unlabelled_images_have_no_such_links_either(
    own_set: Path, tiny_data: Path, tiny_checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    link = own_set / "images" / "train" / "1.npy"
    link.symlink_to(own_set / "new.npy")
    models = (f"teacher={tiny_checkpoint(seed=1)}", f"student={tiny_checkpoint()}")
    words = ("train", *models, f"data={tiny_data}", "imgsz=64", "epochs=1", "device=cpu")
    assert cli.main((*words, f"ima_unlabelled={link.parent}")) == 2
    assert f"{link}: a link out of its folder" in capfd.readouterr().err


def test_links_that_ultralytics_replaces_or_that_stay_in_their_folder_may_be(own_set: Path, tmp_path: Path) -> None:
    scanned = YOLODataset(img_path=str(own_set / "images" / "train"), data={"names": {0: "a", 1: "b", 2: "c"}})
    assert len(scanned.labels) == 8
    cache = own_set / "labels" / "train.cache"
    kept = Path(shutil.move(cache, tmp_path / "kept.cache"))
    content = kept.read_bytes()
    cache.symlink_to(kept)
    (own_set / "images" / "train" / "1.npy").symlink_to("0.npy")
    read_data_set(str(own_set / "data.yaml"))
    (own_set / "labels" / "train" / "0.txt").write_text("")  # the cache is not of this label, and is made anew
    YOLODataset(img_path=str(own_set / "images" / "train"), data={"names": {0: "a", 1: "b", 2: "c"}})
    assert kept.read_bytes() == content
    assert not cache.is_symlink()


def test_a_pipe_or_device_in_place_of_a_data_set_is_not_opened(tmp_path: Path) -> None:
    for path in (pipe(tmp_path / "p.zip"), Path("/dev/zero")):
        with pytest.raises(IMAError, match=f"data={path}: expected a file"):
            read_data_set(str(path))


def test_weights_are_no_pipe(tmp_path: Path) -> None:
    path = pipe(tmp_path / "p.pt")
    with pytest.raises(IMAError, match=f"ima_teacher_weights={path}: expected a file"):
        read_state(str(path), "timm:resnet18")


@pytest.mark.parametrize("is_list", [False, True])
def test_images_without_labels_are_no_pipes(
    is_list: bool, tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = pipe(tmp_path / "more" / "a.png")
    (tmp_path / "list.txt").write_text(f"{path}\n")
    place = tmp_path / "list.txt" if is_list else path.parent
    models = {"teacher": str(tiny_checkpoint(seed=1)), "student": str(tiny_checkpoint())}
    with pytest.raises(IMAError, match=f"{path}: expected a file"):
        prepare({**models, "data": str(tiny_data), "imgsz": 64, "ima_unlabelled": str(place)})


SOURCES: dict[str, str] = {
    "a pipe in place of a list": "p.txt",
    "a folder with a pipe": "folder",
    "a pattern": "folder/*.png",
    "a pattern of folders": "**/*.png",
    "a list of folders": "list.txt",
    "a table of folders": "table.csv",
}


@pytest.mark.parametrize("case", SOURCES)
def test_nothing_is_found_in_a_pipe(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_checkpoint: Callable[..., Path]
) -> None:
    pipe(tmp_path / "p.txt") if case.endswith("of a list") else pipe(tmp_path / "folder" / "p.png")
    (tmp_path / "list.txt").write_text("folder\n")
    (tmp_path / "table.csv").write_text("source\nnowhere,folder\n")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["predict", f"model={tiny_checkpoint()}", f"source={SOURCES[case]}", "imgsz=64"]) == 2
    said = capfd.readouterr().err
    assert ": expected a file: pipes and devices are not read" in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_ultralytics_opens_by_other_ways_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    (tmp_path / "empty.txt").touch()
    for source in ("0", "None", "https://a.b/c.png", "x" * 300, "a\0b", str(tmp_path), str(tmp_path / "empty.txt")):
        check_source(source)
    (tmp_path / "long.csv").write_text("x" * 200_000)
    with pytest.raises(IMAError, match=r"source=.*long\.csv: cannot be read \(field larger"):
        check_source(str(tmp_path / "long.csv"))


def test_a_model_is_no_pipe(tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_data: Path) -> None:
    path = pipe(tmp_path / "p.onnx")
    assert cli.main(["val", f"model={path}", f"data={tiny_data}"]) == 2
    assert f"model={path}: expected a file" in capfd.readouterr().err


def test_a_link_to_itself_hides_no_other_link(own_set: Path) -> None:
    folder = own_set / "images" / "train"
    (folder / "a").symlink_to("a")
    assert len(list(images_in(str(folder)))) == 8
    for name in ("l0", "l1", "l2"):
        (folder / name).symlink_to(".")
    with pytest.raises(IMAError, match="a link that leads back"):
        list(images_in(str(folder)))


def test_links_to_files_folders_and_nothing_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.png").touch()
    (tmp_path / "a" / "2.png").symlink_to("b/1.png")
    (tmp_path / "a" / "3.png").symlink_to("gone")
    (tmp_path / "a" / "4.png").symlink_to("4.png")
    (tmp_path / "beside").symlink_to("a")
    check_search(tmp_path)
    check_search(tmp_path / "gone")


def test_no_disk_is_searched_for_a_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IMAError, match=r"data=/: no \.yaml file, and too many folders to search; name the file"):
        read_data_set("/")
    monkeypatch.setattr("ima_yolo.data_set.MOST_SEARCHED", 2)
    assert MOST_SEARCHED > 1000, "a folder a class is no disk"
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with pytest.raises(IMAError, match="too many folders"):
        read_data_set(str(tmp_path))
    (tmp_path / "data.yaml").write_text("train: a\nval: b\nnames: [x]\n")
    assert read_data_set(str(tmp_path))["names"] == {0: "x"}


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_that_is_empty_is_named(part: str, own_set: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    data = own_set / "data.yaml"
    data.write_text(data.read_text().replace(f"{part}: images/{part}", f"{part}: ~"))
    models = {"teacher": str(tiny_checkpoint(seed=1)), "student": str(tiny_checkpoint())}
    with pytest.raises(IMAError, match=f"no images for '{part}' in an empty list"):
        prepare({**models, "data": str(data), "imgsz": 64})
